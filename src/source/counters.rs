//! The kernel's own counts of one network namespace: cheap to read whatever the
//! size of the socket table, and enough to tell that a dump would show nothing
//! new.
//!
//! Only counters that are kept per namespace are read: TCP's `ActiveOpens` and
//! `PassiveOpens` (snmp), and the sockets in use by protocol and family
//! (sockstat, sockstat6). `alloc`, `orphan` and `mem` in the same lines count
//! the whole machine. A reading allocates nothing. The files stay open, which
//! halves its price, and keeps their namespace alive; that is the one that this
//! process lives in.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::sys::{Folder, Scratch};

/// Longer than any of the three files: snmp has some 1.5 KiB.
const LARGEST: usize = 8192;

/// What was counted at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// connect() calls that sent a SYN, and children of listeners that were
    /// made (`TcpActiveOpens` and `TcpPassiveOpens`, RFC 4022, added up).
    pub tcp_opens: u64,
    /// TCP sockets in use, IPv4 and IPv6 added up.
    pub tcp_in_use: u64,
    /// UDP sockets in use, IPv4 and IPv6 added up.
    pub udp_in_use: u64,
}

/// The counters of the namespace in which they were opened.
#[derive(Debug)]
pub struct Counters {
    snmp: File,
    sockstat: File,
    /// None where there is no IPv6 (`ipv6.disable=1`).
    sockstat6: Option<File>,
    /// `ActiveOpens` and `PassiveOpens` on their way.
    opens: [Unwrapped; 2],
    buffer: Box<[u8; LARGEST]>,
}

impl Counters {
    /// The counters of the calling thread's namespace.
    ///
    /// # Errors
    /// Those of open(2), and of a first reading.
    pub fn open() -> io::Result<Counters> {
        let open = |name| File::open(format!("/proc/thread-self/net/{name}"));
        let mut counters = Counters {
            snmp: open("snmp")?,
            sockstat: open("sockstat")?,
            sockstat6: match open("sockstat6") {
                Ok(file) => Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            },
            opens: Default::default(),
            buffer: Box::new([0; LARGEST]),
        };
        counters.read()?;
        Ok(counters)
    }

    /// Reads the counters now.
    ///
    /// # Errors
    /// Those of pread(2); `InvalidData` for a file without the counters.
    pub fn read(&mut self) -> io::Result<Reading> {
        let buffer = &mut self.buffer[..];
        let mut reading = Reading::default();
        let [active, passive] = counted(whole(&self.snmp, buffer)?)?;
        let [actives, passives] = &mut self.opens;
        reading.tcp_opens = actives.take(active).wrapping_add(passives.take(passive));
        reading.add_sockstat(whole(&self.sockstat, buffer)?)?;
        if let Some(file) = &self.sockstat6 {
            reading.add_sockstat6(whole(file, buffer)?)?;
        }
        Ok(reading)
    }
}

impl Reading {
    /// The counters of the namespace that the calling thread is in, through its
    /// own `/proc/thread-self/net`. Each file is open for the moment: an open one
    /// keeps its namespace alive. The directory does not: what is opened in it is
    /// of the namespace in which its thread is then (get_proc_task_net(),
    /// fs/proc/proc_net.c).
    ///
    /// # Errors
    /// Those of openat(2) and read(2); `InvalidData` for a file without the
    /// counters.
    pub fn here(net: &Folder, scratch: &mut Scratch) -> io::Result<Reading> {
        let mut reading = Reading::default();
        let [active, passive] = counted(net.text(b"snmp", scratch)?)?;
        reading.tcp_opens = active.wrapping_add(passive);
        reading.add_sockstat(net.text(b"sockstat", scratch)?)?;
        match net.text(b"sockstat6", scratch) {
            Ok(text) => reading.add_sockstat6(text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(reading)
    }

    fn add_sockstat(&mut self, text: &[u8]) -> io::Result<()> {
        self.tcp_in_use += in_use(text, b"TCP:").ok_or_else(|| missing("TCP in sockstat"))?;
        self.udp_in_use += in_use(text, b"UDP:").ok_or_else(|| missing("UDP in sockstat"))?;
        Ok(())
    }

    fn add_sockstat6(&mut self, text: &[u8]) -> io::Result<()> {
        self.tcp_in_use += in_use(text, b"TCP6:").ok_or_else(|| missing("TCP6 in sockstat6"))?;
        self.udp_in_use += in_use(text, b"UDP6:").ok_or_else(|| missing("UDP6 in sockstat6"))?;
        Ok(())
    }
}

/// A counter that only ever grows: where the kernel's `unsigned
/// long` has 32 bits it begins again at 0 behind 2^32 - 1 (`snmp_fold_field()`,
/// net/ipv4/af_inet.c), and here it does not.
#[derive(Clone, Copy, Debug, Default)]
struct Unwrapped {
    last: u64,
    wrapped: u64,
}

impl Unwrapped {
    /// The count, when the kernel says this.
    fn take(&mut self, read: u64) -> u64 {
        if read < self.last {
            self.wrapped = self.wrapped.wrapping_add(1 << 32);
        }
        self.last = read;
        self.wrapped.wrapping_add(read)
    }
}

/// A file's text. These files are written anew for each read from their
/// beginning, and come in one piece.
fn whole<'b>(file: &File, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    let length = loop {
        match file.read_at(buffer, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    Ok(&buffer[..length])
}

fn missing(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no {what}"))
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
}

fn number(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// As [`opens`], of a text that must have them.
fn counted(snmp: &[u8]) -> io::Result<[u64; 2]> {
    opens(snmp).ok_or_else(|| missing("ActiveOpens and PassiveOpens in snmp"))
}

/// `ActiveOpens` and `PassiveOpens` of a text like /proc/net/snmp: a line of names
/// and a line of values, both of which begin with `Tcp:`.
fn opens(text: &[u8]) -> Option<[u64; 2]> {
    let mut tcp = text
        .split(|byte| *byte == b'\n')
        .filter(|line| line.starts_with(b"Tcp:"));
    let (names, values) = (tcp.next()?, tcp.next()?);
    let mut found = [None; 2];
    for (name, value) in words(names).zip(words(values)) {
        match name {
            b"ActiveOpens" => found[0] = number(value),
            b"PassiveOpens" => found[1] = number(value),
            _ => {}
        }
    }
    Some([found[0]?, found[1]?])
}

/// The value behind `inuse` in the line that begins with `label`.
fn in_use(text: &[u8], label: &[u8]) -> Option<u64> {
    let line = text
        .split(|byte| *byte == b'\n')
        .find(|line| line.starts_with(label))?;
    let mut words = words(line);
    words.find(|word| *word == b"inuse")?;
    number(words.next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNMP: &[u8] =
        b"Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm MaxConn ActiveOpens PassiveOpens\n\
                          Tcp: 1 -1 68 4\nUdp: InDatagrams\nUdp: 9\n";

    #[test]
    fn the_columns_are_found_by_name() {
        assert_eq!(opens(SNMP), Some([68, 4]));
        assert_eq!(opens(b"Tcp: ActiveOpens\nTcp: 1\n"), None);
        assert_eq!(opens(b"Tcp: ActiveOpens PassiveOpens\n"), None);
        assert_eq!(opens(b""), None);
    }

    #[test]
    fn only_the_namespaces_own_numbers_are_used() {
        let text = b"sockets: used 17\nTCP: inuse 2 orphan 5 tw 6 alloc 7 mem 8\nUDP: inuse 3\n";
        assert_eq!(in_use(text, b"TCP:"), Some(2));
        assert_eq!(in_use(text, b"UDP:"), Some(3));
        assert_eq!(in_use(text, b"TCP6:"), None);
        assert_eq!(in_use(b"TCP: orphan 5\n", b"TCP:"), None);
        assert_eq!(in_use(b"TCP: inuse", b"TCP:"), None);
    }

    #[test]
    fn a_counter_of_32_bits_goes_on_behind_its_end() {
        let end = u64::from(u32::MAX);
        let mut counter = Unwrapped::default();
        let read = [end - 1, end, 0, 0, 7, end, 3];
        let counts = read.map(|read| counter.take(read));
        let first = end - 1;
        assert_eq!(
            counts.map(|count| count - first),
            [0, 1, 2, 2, 9, end + 2, end + 6]
        );
    }

    #[test]
    fn this_kernel_has_them() {
        let mut counters = Counters::open().expect("readable counters");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let reading = counters.read().expect("a reading");
        assert!(reading.udp_in_use > 0, "read anew: {reading:?}");
        drop(socket);
    }
}

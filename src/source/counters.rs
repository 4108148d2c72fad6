//! The kernel's own counts of one network namespace: cheap to read whatever the
//! size of the socket table, and enough to tell that a dump would show nothing
//! new.
//!
//! Only counters that are kept per namespace are read: TCP's `ActiveOpens` and
//! `PassiveOpens` (snmp), and the sockets in use by protocol and family
//! (sockstat, sockstat6). `alloc`, `orphan` and `mem` in the same lines count
//! the whole machine. A reading allocates nothing and keeps no file of the
//! namespace open, only its directory: an open file would keep the namespace
//! alive (proc_net_ns(5) files hold a reference, their directory does not).

use std::io;
use std::os::fd::OwnedFd;

use crate::sys;

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
    dir: OwnedFd,
    buffer: Box<[u8; LARGEST]>,
    /// There is no IPv6 (`ipv6.disable=1`): no sockstat6 either.
    no_v6: bool,
}

impl Counters {
    /// The counters of the calling thread's namespace.
    ///
    /// # Errors
    /// Those of opening `/proc/thread-self/net`, and of a first reading: a
    /// namespace whose counters cannot be read has no use for a gate.
    pub fn open() -> io::Result<Counters> {
        let mut counters = Counters {
            dir: sys::open_dir("/proc/thread-self/net")?,
            buffer: Box::new([0; LARGEST]),
            no_v6: false,
        };
        match counters.file(c"sockstat6") {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => counters.no_v6 = true,
            Err(error) => return Err(error),
        }
        counters.read()?;
        Ok(counters)
    }

    /// Reads the counters now.
    ///
    /// # Errors
    /// Those of open(2) and read(2); `InvalidData` for a file without the
    /// counters.
    pub fn read(&mut self) -> io::Result<Reading> {
        let mut reading = Reading {
            tcp_opens: opens(self.file(c"snmp")?).ok_or_else(|| missing("ActiveOpens in snmp"))?,
            ..Reading::default()
        };
        let text = self.file(c"sockstat")?;
        reading.tcp_in_use = in_use(text, b"TCP:").ok_or_else(|| missing("TCP in sockstat"))?;
        reading.udp_in_use = in_use(text, b"UDP:").ok_or_else(|| missing("UDP in sockstat"))?;
        if !self.no_v6 {
            let text = self.file(c"sockstat6")?;
            reading.tcp_in_use +=
                in_use(text, b"TCP6:").ok_or_else(|| missing("TCP6 in sockstat6"))?;
            reading.udp_in_use +=
                in_use(text, b"UDP6:").ok_or_else(|| missing("UDP6 in sockstat6"))?;
        }
        Ok(reading)
    }

    fn file(&mut self, name: &std::ffi::CStr) -> io::Result<&[u8]> {
        let length = sys::read_at(&self.dir, name, &mut self.buffer[..])?;
        Ok(&self.buffer[..length])
    }
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

/// `ActiveOpens + PassiveOpens` of a text like /proc/net/snmp: a line of names
/// and a line of values, both of which begin with `Tcp:`.
fn opens(text: &[u8]) -> Option<u64> {
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
    Some(found[0]?.wrapping_add(found[1]?))
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
        assert_eq!(opens(SNMP), Some(72));
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
    fn this_kernel_has_them() {
        let mut counters = Counters::open().expect("readable counters");
        counters.read().expect("a reading");
    }
}

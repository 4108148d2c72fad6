//! A DNS server that answers PTR questions as a test says, and keeps count.
//!
//! An answer can be held back, so that a test knows that nothing has answered
//! yet: no time is waited for.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::daemon::PATIENCE;

/// What is answered to the question for an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A PTR record with this data (RFC 1035 section 3.3: labels, each behind
    /// its length).
    Record(Vec<u8>),
    /// NXDOMAIN.
    NoSuchName,
    /// SERVFAIL.
    Failure,
    /// No PTR record, but a CNAME record whose name has one (RFC 2317).
    Delegated(Vec<u8>),
}

/// A name of these labels, whatever is in them.
pub fn labels(labels: &[&[u8]]) -> Answer {
    Answer::Record(wire(labels))
}

/// A name as it is written.
pub fn name(text: &str) -> Answer {
    labels(&text.split('.').map(str::as_bytes).collect::<Vec<_>>())
}

fn wire(labels: &[&[u8]]) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in labels {
        wire.push(u8::try_from(label.len()).expect("a label has 63 bytes at most"));
        wire.extend(*label);
    }
    wire.push(0);
    wire
}

/// A running server.
pub struct Server {
    socket: UdpSocket,
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    answers: HashMap<IpAddr, Answer>,
    held: HashSet<IpAddr>,
    /// Whatever is asked for.
    dead: bool,
    /// Questions without an answer yet, and who asked.
    waiting: Vec<(IpAddr, Vec<u8>, SocketAddr)>,
    /// Every question there was.
    asked: Vec<IpAddr>,
}

impl Server {
    /// Starts it where a resolver looks for it. It ends with the process.
    pub fn start() -> Server {
        let socket = UdpSocket::bind("127.0.0.1:53").expect("port 53 of a new namespace is free");
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let server = Server {
            socket: socket.try_clone().expect("a descriptor"),
            shared: Arc::clone(&shared),
        };
        thread::spawn(move || {
            let mut buffer = [0; 512];
            loop {
                let (length, from) = socket
                    .recv_from(&mut buffer)
                    .expect("a bound socket receives");
                let query = &buffer[..length];
                let ip = address(query).expect("only PTR questions are asked here");
                let (state, more) = &*shared;
                let mut state = state.lock().expect("no thread panicked");
                state.asked.push(ip);
                if state.dead || state.held.contains(&ip) {
                    state.waiting.push((ip, query.to_vec(), from));
                } else {
                    reply(&socket, &state, ip, query, from);
                }
                more.notify_all();
            }
        });
        server
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.0.lock().expect("no thread panicked")
    }

    /// From now on, this is the answer. Without one it is NXDOMAIN.
    pub fn answer(&self, ip: IpAddr, answer: Answer) {
        self.state().answers.insert(ip, answer);
    }

    /// Holds the answers for an address back.
    pub fn hold(&self, ip: IpAddr) {
        self.state().held.insert(ip);
    }

    /// Answers nothing any more.
    pub fn die(&self) {
        self.state().dead = true;
    }

    /// Gives the answers that were held back.
    pub fn release(&self, ip: IpAddr) {
        let mut state = self.state();
        assert!(state.held.remove(&ip), "{ip} is not held");
        let waiting = std::mem::take(&mut state.waiting);
        let (released, kept) = waiting.into_iter().partition(|(of, ..)| *of == ip);
        state.waiting = kept;
        let released: Vec<(IpAddr, Vec<u8>, SocketAddr)> = released;
        for (_, query, from) in released {
            reply(&self.socket, &state, ip, &query, from);
        }
    }

    /// Waits until somebody has asked for this address.
    pub fn wait_asked(&self, ip: IpAddr) {
        let asked = |state: &mut State| !state.asked.contains(&ip);
        let waited = self
            .shared
            .1
            .wait_timeout_while(self.state(), PATIENCE, asked);
        let ended = waited.expect("no thread panicked").1;
        assert!(!ended.timed_out(), "nobody asked for {ip}");
    }

    /// How often this address was asked for.
    pub fn asked(&self, ip: IpAddr) -> usize {
        self.state()
            .asked
            .iter()
            .filter(|asked| **asked == ip)
            .count()
    }

    /// Every question so far.
    pub fn log(&self) -> Vec<IpAddr> {
        self.state().asked.clone()
    }
}

/// The address that a PTR question is about.
fn address(query: &[u8]) -> Option<IpAddr> {
    let mut labels = Vec::new();
    let mut at = 12;
    while let Some(&length) = query.get(at).filter(|length| **length != 0) {
        let label = query.get(at + 1..at + 1 + usize::from(length))?;
        labels.push(std::str::from_utf8(label).ok()?);
        at += 1 + usize::from(length);
    }
    // QTYPE PTR, QCLASS IN.
    if query.get(at + 1..at + 5)? != [0, 12, 0, 1] {
        return None;
    }
    match &labels[..] {
        [d, c, b, a, "in-addr", "arpa"] => format!("{a}.{b}.{c}.{d}")
            .parse::<Ipv4Addr>()
            .ok()
            .map(IpAddr::V4),
        [nibbles @ .., "ip6", "arpa"] if nibbles.len() == 32 => {
            let digits: String = nibbles.iter().rev().copied().collect();
            let bits = u128::from_str_radix(&digits, 16).ok()?;
            Some(Ipv6Addr::from_bits(bits).into())
        }
        _ => None,
    }
}

fn reply(socket: &UdpSocket, state: &State, ip: IpAddr, query: &[u8], to: SocketAddr) {
    let answer = state.answers.get(&ip).unwrap_or(&Answer::NoSuchName);
    let code = match answer {
        Answer::Record(_) | Answer::Delegated(_) => 0,
        Answer::Failure => 2,
        Answer::NoSuchName => 3,
    };
    // The id and the question as asked; QR, RD and RA.
    let mut reply = query.to_vec();
    reply[2..4].copy_from_slice(&[0x81, 0x80 | code]);
    reply[6..12].fill(0);
    // The question's name, by a pointer to it.
    let question = [0xc0, 12];
    match answer {
        Answer::Record(data) => {
            reply[7] = 1;
            record(&mut reply, &question, 12, data);
        }
        Answer::Delegated(data) => {
            let alias = wire(&[b"7", b"0-25", b"113", b"0", b"203", b"in-addr", b"arpa"]);
            reply[7] = 2;
            record(&mut reply, &question, 5, &alias);
            record(&mut reply, &alias, 12, data);
        }
        Answer::Failure | Answer::NoSuchName => {}
    }
    socket.send_to(&reply, to).expect("lo takes a datagram");
}

/// One resource record: class IN, an hour to live.
fn record(reply: &mut Vec<u8>, name: &[u8], kind: u16, data: &[u8]) {
    reply.extend(name);
    reply.extend(kind.to_be_bytes());
    reply.extend([0, 1, 0, 0, 0x0e, 0x10]);
    reply.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
    reply.extend(data);
}

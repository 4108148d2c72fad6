//! The captured datagrams.

use std::path::PathBuf;

use sockwatch::model::Proto;
use sockwatch::wire::sock_diag::{Body, Messages};

use crate::lines::Holds;
use crate::order::{self, Order};

/// One datagram as the kernel sent it, or would have sent it here: see
/// [`order`].
pub struct Fixture {
    /// Its file's name, without the ending.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What its sockets were, sorted lines.
    pub expected: Vec<String>,
}

impl Fixture {
    /// What it holds goes by its name.
    pub fn holds(&self) -> Holds {
        if self.name.starts_with("notice-") {
            Holds::Notices
        } else if self.name.contains("udp") {
            Holds::Rows(Proto::Udp)
        } else {
            Holds::Rows(Proto::Tcp)
        }
    }

    /// The payloads of its rows or notices.
    pub fn sockets(&self) -> Vec<&[u8]> {
        Messages::new(&self.bytes)
            .filter_map(|message| match message.expect("a kernel's message").body {
                Body::Socket(payload) => Some(payload),
                _ => None,
            })
            .collect()
    }
}

/// All of them, by name.
pub fn all() -> Vec<Fixture> {
    let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/netlink"));
    let mut fixtures = Vec::new();
    for entry in std::fs::read_dir(&directory).expect("the directory of fixtures") {
        let path = entry.expect("an entry of it").path();
        if path.extension().is_none_or(|extension| extension != "bin") {
            continue;
        }
        let name = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .expect("a name in ASCII");
        let text = std::fs::read_to_string(path.with_extension("txt"))
            .unwrap_or_else(|error| panic!("{name} has no expectation: {error}"));
        let mut expected: Vec<String> = text.lines().map(str::to_string).collect();
        expected.sort();
        let sent = std::fs::read(&path).expect("a fixture can be read");
        let bytes = match Order::HERE {
            Order::Little => sent,
            Order::Big => order::turned(&sent, Order::Little),
        };
        fixtures.push(Fixture {
            name: name.to_string(),
            bytes,
            expected,
        });
    }
    fixtures.sort_by(|a, b| a.name.cmp(&b.name));
    fixtures
}

/// Those that hold rows.
pub fn rows() -> Vec<Fixture> {
    all()
        .into_iter()
        .filter(|fixture| fixture.holds() != Holds::Notices)
        .collect()
}

/// Those that hold TCP notices.
pub fn tcp_notices() -> Vec<Fixture> {
    all()
        .into_iter()
        .filter(|fixture| fixture.name.starts_with("notice-tcp"))
        .collect()
}

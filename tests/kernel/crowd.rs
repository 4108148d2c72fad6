//! Some sockets of every kind: a part is to end while nobody hears it, and a
//! part is to live through it and be left alone.
//!
//! The kinds are those for which it is hard to tell whether a socket has ended
//! when its notice was lost: the kernel's exact query says "gone" of living ones
//! (bound, SO_REUSEPORT, overlapping UDP), and a dead one can have left a
//! minisocket with its cookie.

use std::net::SocketAddr;

use crate::expect::{SILENT, Traffic};
use crate::sock::{Domain, Ident, Sock};

/// A socket with the state that a dump reads, and what it will have carried.
pub struct Member {
    pub sock: Sock,
    pub state: &'static str,
    pub traffic: Traffic,
}

/// The sockets.
#[derive(Default)]
pub struct Crowd {
    /// To be ended by [`Crowd::end_doomed`].
    pub doomed: Vec<Member>,
    /// Not to be ended, or only when somebody listens.
    pub living: Vec<Member>,
    /// Living servers whose client is doomed: they will be in CLOSE_WAIT.
    pub left_alone: Vec<Member>,
}

/// A socket that is gone.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub ident: Ident,
    pub state: &'static str,
    pub traffic: Traffic,
}

impl Crowd {
    /// A crowd of some fifty.
    pub fn new() -> Crowd {
        let mut crowd = Crowd::default();
        for domain in Domain::ALL {
            crowd.without_peer(domain);
            let listener = Sock::listener(domain);
            for _ in 0..3 {
                for list in [&mut crowd.doomed, &mut crowd.living] {
                    let (client, server) = Sock::pair(&listener);
                    list.extend([established(client), established(server)]);
                }
            }
            let (client, server) = Sock::pair(&listener);
            crowd.doomed.push(established(client));
            crowd.left_alone.push(established(server));
            crowd.living.push(Member { sock: listener, state: "LISTEN", traffic: Traffic::None });
        }
        crowd
    }

    fn without_peer(&mut self, domain: Domain) {
        let group = |tcp: bool| {
            let mut group: Vec<Sock> = Vec::new();
            for _ in 0..4 {
                let sock = if tcp { Sock::tcp(domain) } else { Sock::udp(domain) };
                sock.share_port();
                match group.first() {
                    Some(first) => sock.bind(first.local()),
                    None => sock.bind_loopback(),
                }
                if tcp {
                    sock.listen(8);
                }
                group.push(sock);
            }
            group
        };
        let bound = |sock: Sock| {
            sock.bind_loopback();
            sock
        };
        let connected = |sock: Sock| {
            sock.connect(SocketAddr::new(domain.loopback(), 9)).expect("UDP asks nobody");
            sock
        };
        let kinds: [(&str, Vec<Sock>); 6] = [
            ("LISTEN", vec![Sock::listener(domain), Sock::listener(domain)]),
            ("LISTEN", group(true)),
            ("CLOSE", vec![bound(Sock::tcp(domain)), bound(Sock::tcp(domain))]),
            ("UNCONN", vec![bound(Sock::udp(domain)), bound(Sock::udp(domain))]),
            ("UNCONN", group(false)),
            ("ESTABLISHED", vec![connected(Sock::udp(domain)), connected(Sock::udp(domain))]),
        ];
        for (state, socks) in kinds {
            for (at, sock) in socks.into_iter().enumerate() {
                let list = if at % 2 == 0 { &mut self.doomed } else { &mut self.living };
                list.push(Member { sock, state, traffic: Traffic::None });
            }
        }
    }

    /// The cookies of all.
    pub fn cookies(&self) -> Vec<u64> {
        let all = [&self.doomed, &self.living, &self.left_alone];
        all.into_iter().flatten().map(|member| member.sock.cookie).collect()
    }

    /// Ends the doomed ones.
    pub fn end_doomed(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.doomed).into_iter().map(Member::end).collect()
    }
}

impl Member {
    /// Closes it.
    pub fn end(self) -> Ended {
        Ended { ident: self.sock.close(), state: self.state, traffic: self.traffic }
    }

    /// In another state than when it was first read.
    pub fn now(self, state: &'static str) -> Member {
        Member { state, ..self }
    }
}

fn established(sock: Sock) -> Member {
    Member { sock, state: "ESTABLISHED", traffic: SILENT }
}

impl Ended {
    /// Its cookie.
    pub fn cookie(&self) -> u64 {
        self.ident.cookie.expect("these all have one")
    }
}

//! Some sockets of every kind: a part is to end while nobody hears it, and a
//! part is to live through it and be left alone.
//!
//! The kinds are those for which it is hard to tell whether a socket has ended
//! when its notice was lost: the kernel's exact query says "gone" of living ones
//! (bound, SO_REUSEPORT, overlapping UDP), and a dead one can have left a
//! minisocket with its cookie.

use std::net::SocketAddr;

use crate::expect::{SILENT, Traffic};
use crate::proc_net;
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
    /// Not to be ended, or only when somebody listens: those that end together
    /// in one list.
    pub living: Vec<Vec<Member>>,
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
                let pair = || {
                    let (client, server) = Sock::pair(&listener);
                    vec![established(client), established(server)]
                };
                crowd.doomed.extend(pair());
                crowd.living.push(pair());
            }
            let (client, server) = Sock::pair(&listener);
            crowd.doomed.push(established(client));
            crowd.left_alone.push(established(server));
            let listener = Member {
                sock: listener,
                state: "LISTEN",
                traffic: Traffic::None,
            };
            crowd.living.push(vec![listener]);
        }
        crowd
    }

    fn without_peer(&mut self, domain: Domain) {
        let group = |tcp: bool| {
            let mut group: Vec<Sock> = Vec::new();
            for _ in 0..4 {
                let sock = if tcp {
                    Sock::tcp(domain)
                } else {
                    Sock::udp(domain)
                };
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
            sock.connect(SocketAddr::new(domain.loopback(), 9))
                .expect("UDP asks nobody");
            sock
        };
        let kinds: [(&str, Vec<Sock>); 6] = [
            (
                "LISTEN",
                vec![Sock::listener(domain), Sock::listener(domain)],
            ),
            ("LISTEN", group(true)),
            (
                "CLOSE",
                vec![bound(Sock::tcp(domain)), bound(Sock::tcp(domain))],
            ),
            (
                "UNCONN",
                vec![bound(Sock::udp(domain)), bound(Sock::udp(domain))],
            ),
            ("UNCONN", group(false)),
            (
                "ESTABLISHED",
                vec![connected(Sock::udp(domain)), connected(Sock::udp(domain))],
            ),
        ];
        for (state, socks) in kinds {
            for (at, sock) in socks.into_iter().enumerate() {
                let member = Member {
                    sock,
                    state,
                    traffic: Traffic::None,
                };
                if at % 2 == 0 {
                    self.doomed.push(member);
                } else {
                    self.living.push(vec![member]);
                }
            }
        }
    }

    /// The cookies of all.
    pub fn cookies(&self) -> Vec<u64> {
        self.doomed
            .iter()
            .chain(self.survivors())
            .map(|member| member.sock.cookie)
            .collect()
    }

    /// Those that are not doomed.
    pub fn survivors(&self) -> impl Iterator<Item = &Member> {
        self.living.iter().flatten().chain(&self.left_alone)
    }

    /// Ends the doomed ones.
    pub fn end_doomed(&mut self) -> Vec<Ended> {
        let ended = std::mem::take(&mut self.doomed)
            .into_iter()
            .map(Member::end)
            .collect();
        proc_net::quiet();
        ended
    }

    /// The survivors, those that end together in one list, once the doomed have
    /// ended.
    pub fn into_survivors(self) -> Vec<Vec<Member>> {
        let left_alone = self.left_alone.into_iter();
        let left_alone = left_alone.map(|member| {
            vec![Member {
                state: "CLOSE_WAIT",
                ..member
            }]
        });
        self.living.into_iter().chain(left_alone).collect()
    }
}

impl Member {
    /// Closes it.
    pub fn end(self) -> Ended {
        Ended {
            ident: self.sock.close(),
            state: self.state,
            traffic: self.traffic,
        }
    }
}

fn established(sock: Sock) -> Member {
    Member {
        sock,
        state: "ESTABLISHED",
        traffic: SILENT,
    }
}

impl Ended {
    /// The state that its opening said.
    pub fn state_opened(&self) -> &'static str {
        if self.state == "CLOSE_WAIT" {
            "ESTABLISHED"
        } else {
            self.state
        }
    }

    /// Its cookie.
    pub fn cookie(&self) -> u64 {
        self.ident.cookie.expect("these all have one")
    }
}

//! What the ends of a socket must be for a glob to match: its literal ports and
//! addresses, as far as the glob insists on them.
//!
//! A literal in the text proves nothing by itself: `*` crosses spaces, so in
//! `*:443 *` it may be either end's port, and in `*443 *` it is no port at all.
//! So the text only says which ports and addresses are worth telling apart. Then
//! the automaton is walked over all tuples as in `shape`, and with every spot goes
//! which of them the ends so far have held. What can match at the end of the walk
//! says what the glob insists on.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::automaton::{Automaton, Spot, Walk};
use super::shape::{self, ALPHABET, END, ENDPOINT, HOST_WORD, Subject};
use crate::model::{End, Ends, Proto, TcpState};
use crate::order::by_number;

/// Spots that a walk may visit. A glob with one port takes some hundreds; one that
/// takes more insists on nothing.
const SPOTS: usize = 1 << 14;

/// The most ports, and the most addresses, that are told apart in one glob.
const MOST: usize = 32;

/// None of the literals: any other port or address.
const OTHER: u8 = 0;

/// What a glob can match, and with which ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Match {
    /// The literals that the ends hold.
    pub ends: Ends,
    /// The states in which it can match with these: bit n is state n.
    pub states: u16,
    /// It matches with these in every state and with every host.
    pub always: bool,
}

/// What a glob says of the tuples of a protocol, by the literals in its text; those
/// that it cannot match may be missing, unless `all` are wanted. None where the walk
/// is too long.
pub(super) fn matches(
    automaton: &Automaton,
    text: &str,
    proto: Proto,
    all: bool,
) -> Option<Vec<Match>> {
    let literals = Literals::of(text)?;
    let mut classes: Vec<Class> = Vec::new();
    for (of, digit, _) in shape::spellings(automaton, Subject::Sockets) {
        if of == proto {
            literals.walk(automaton, (proto, digit), all, &mut classes)?;
        }
    }
    let each = classes.into_iter();
    Some(each.map(|class| literals.told(&class)).collect())
}

/// Where in a word the walk is, and what the words before it held: local address,
/// local port, remote address, remote port.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Track {
    node: usize,
    held: [u8; 4],
}

/// All tuples that hold the same literals.
struct Class {
    held: [u8; 4],
    states: u16,
    /// Every one of them that was looked at matches.
    always: bool,
}

/// The ports and addresses of one text.
struct Literals {
    ports: Vec<u16>,
    port_texts: Texts,
    ips: Vec<IpAddr>,
    ip_texts: Texts,
}

/// Texts to be recognised byte by byte.
struct Texts(Vec<Node>);

#[derive(Default)]
struct Node {
    next: Vec<(u8, usize)>,
    /// The number of the text that ends here.
    ends: u8,
}

/// The node of what is none of the texts.
const LOST: usize = usize::MAX;

impl Texts {
    fn new(texts: impl Iterator<Item = String>) -> Texts {
        let mut nodes = vec![Node::default()];
        for (number, text) in texts.enumerate() {
            let mut at = 0;
            for byte in text.bytes() {
                at = match nodes[at].next.iter().find(|(label, _)| *label == byte) {
                    Some(&(_, next)) => next,
                    None => {
                        let next = nodes.len();
                        nodes[at].next.push((byte, next));
                        nodes.push(Node::default());
                        next
                    }
                };
            }
            // There are at most MOST of them.
            nodes[at].ends = number as u8 + 1;
        }
        Texts(nodes)
    }

    fn step(&self, node: usize, byte: u8) -> usize {
        let next = self.0.get(node).map(|node| &node.next);
        let mut next = next.into_iter().flatten();
        next.find(|(label, _)| *label == byte)
            .map_or(LOST, |(_, next)| *next)
    }

    fn held(&self, node: usize) -> u8 {
        self.0.get(node).map_or(OTHER, |node| node.ends)
    }
}

impl Literals {
    /// Those of a text. None where there are too many to be worth it.
    fn of(text: &str) -> Option<Literals> {
        let (mut ports, mut ips) = (Vec::new(), Vec::new());
        // Behind a colon, perhaps as one of several: `*:{80,443}`.
        for (at, _) in text.match_indices([':', '{', ',']) {
            let rest = &text[at + 1..];
            let digits = rest.find(|c: char| !c.is_ascii_digit());
            let word = &rest[..digits.unwrap_or(rest.len())];
            let canonical = |port: &u16| *port != 0 && port.to_string() == word;
            ports.extend(word.parse::<u16>().ok().filter(canonical));
        }
        for word in text.split(|c: char| !(c.is_ascii_digit() || c == '.')) {
            let ip = word.parse::<Ipv4Addr>().ok();
            ips.extend(ip.filter(|ip| !ip.is_unspecified()).map(IpAddr::V4));
        }
        for word in text.split(|c: char| !(c.is_ascii_hexdigit() || matches!(c, ':' | '.'))) {
            let ip = word.parse::<Ipv6Addr>().ok();
            let shown = |ip: &Ipv6Addr| ip.to_ipv4_mapped().is_none() && !ip.is_unspecified();
            ips.extend(ip.filter(shown).map(IpAddr::V6));
        }
        by_number(&mut ports, |port| (*port).into());
        ports.dedup();
        // As the addresses are ordered: IPv4 first.
        let halves = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => (0, u128::from(ip.to_bits())),
            IpAddr::V6(ip) => (1, ip.to_bits()),
        };
        by_number(&mut ips, |ip| halves(ip).1 as u64);
        by_number(&mut ips, |ip| (halves(ip).1 >> 64) as u64);
        by_number(&mut ips, |ip| halves(ip).0);
        ips.dedup();
        let few = ports.len() <= MOST && ips.len() <= MOST;
        few.then(|| Literals {
            port_texts: Texts::new(ports.iter().map(u16::to_string)),
            ip_texts: Texts::new(ips.iter().map(|ip| match ip {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            })),
            ports,
            ips,
        })
    }

    /// Walks the automaton over all tuples that begin so. None if it is too long.
    fn walk(
        &self,
        automaton: &Automaton,
        (proto, digit): (Proto, &str),
        all: bool,
        classes: &mut Vec<Class>,
    ) -> Option<()> {
        let mut cache = automaton.dfa.create_cache();
        let mut walk = Walk::new(automaton, &mut cache);
        let begin = walk.begin(proto.as_str(), digit)?;
        let begin = walk.feed(begin, " ")?;
        let track = Track {
            node: 0,
            held: [OTHER; 4],
        };
        let begin = (begin, 0_u8, track);
        let mut seen: HashSet<(Spot, u8, Track)> = HashSet::from([begin]);
        let mut queue = vec![begin];
        let mut tried = Vec::with_capacity(ALPHABET.len());
        while let Some((spot, stage, track)) = queue.pop() {
            if spot.is_dead() && !all {
                continue;
            }
            if stage == END {
                end(&mut walk, spot, proto, track.held, classes);
                continue;
            }
            tried.clear();
            for &byte in ALPHABET {
                let Some(next) = shape::next(stage, byte) else {
                    continue;
                };
                let track = self.follow(track, stage, next, byte);
                let same = (automaton.dfa.byte_classes().get(byte), next, track);
                if tried.contains(&same) {
                    continue;
                }
                tried.push(same);
                let at = (walk.step(spot, byte)?, next, track);
                if seen.insert(at) {
                    if seen.len() > SPOTS {
                        return None;
                    }
                    queue.push(at);
                }
            }
        }
        Some(())
    }

    /// The track after a byte that leads from one stage to the next.
    fn follow(&self, track: Track, stage: u8, next: u8, byte: u8) -> Track {
        let Track { node, mut held } = track;
        if stage >= HOST_WORD {
            return track;
        }
        let end = usize::from(stage / ENDPOINT) * 2;
        let inner = |stage: u8| stage % ENDPOINT;
        let node = if next / ENDPOINT != stage / ENDPOINT {
            held[end + 1] = self.port_texts.held(node);
            0
        } else if inner(next) == 5 {
            held[end] = self.ip_texts.held(node);
            0
        } else if inner(next) == 6 {
            self.port_texts.step(node, byte)
        } else {
            self.ip_texts.step(node, byte)
        };
        Track { node, held }
    }

    fn told(&self, class: &Class) -> Match {
        let at = |held: u8| usize::from(held).checked_sub(1);
        let end = |ip: u8, port: u8| End {
            ip: at(ip).map(|at| self.ips[at]),
            port: at(port).map(|at| self.ports[at]),
        };
        let [local_ip, local_port, remote_ip, remote_port] = class.held;
        Match {
            ends: Ends {
                local: end(local_ip, local_port),
                remote: end(remote_ip, remote_port),
            },
            states: class.states,
            always: class.always,
        }
    }
}

/// Notes in which states a tuple that has come so far matches.
fn end(walk: &mut Walk<'_>, spot: Spot, proto: Proto, held: [u8; 4], classes: &mut Vec<Class>) {
    let (mut states, mut always) = (0, true);
    for state in shape::states(proto) {
        let matches = walk.ends(spot, state.as_str(proto));
        always &= matches == Some(true);
        if matches != Some(false) {
            states |= bit(state);
        }
    }
    match classes.iter_mut().find(|class| class.held == held) {
        Some(class) => {
            class.states |= states;
            class.always &= always;
        }
        None => classes.push(Class {
            held,
            states,
            always,
        }),
    }
}

/// The bit of a state in [`Match::states`].
pub(super) fn bit(state: TcpState) -> u16 {
    1 << (state as u16)
}

#[cfg(test)]
mod tests {
    use super::super::Filter;
    use crate::model::Proto;

    fn told(patterns: &[&str], ignore: &[&str]) -> [String; 2] {
        let list = |globs: &[&str]| {
            globs
                .iter()
                .map(|&glob| glob.to_owned())
                .collect::<Vec<_>>()
        };
        let filter = Filter::new(&list(patterns), &list(ignore)).expect("globs");
        [filter.sought_in_dump(Proto::Tcp), filter.sought(Proto::Tcp)].map(|it| it.to_string())
    }

    #[test]
    fn a_glob_insists_on_what_it_cannot_match_without() {
        let peer = ", and all without a peer";
        for (patterns, once) in [
            (&["tcp * *:443 * *"][..], "ends *:* *:443"),
            // One star crosses both ends.
            (&["*:443 *"], "ends *:* *:443, *:443 *:*"),
            (
                &["tcp *:22 * * *", "tcp * *:443 * *"],
                "ends *:* *:443, *:22 *:*",
            ),
            (&["tcp * *:{80,443} * *"], "ends *:* *:80, *:* *:443"),
            (&["tcp 10.0.0.2:* * * *"], "ends 10.0.0.2:* *:*"),
            (
                &["tcp * [2001:db8::1]:443 * *"],
                "ends *:* [2001:db8::1]:443",
            ),
            (
                &[r"tcp * \[2001:db8::1\]:443 * *"],
                "ends *:* [2001:db8::1]:443",
            ),
            (
                &["tcp 10.0.0.2:22 10.0.0.3:5 * *"],
                "ends 10.0.0.2:22 10.0.0.3:5",
            ),
            (&["tcp * *443 * *"], "all ends"),
            (&["tcp * *:80?? * *"], "all ends"),
            (&["tcp * 10.0.0.*:* * *"], "all ends"),
            (&["tcp * [2001:db8:*]:* * *"], "all ends"),
            (&["tcp * *:443 * *", "tcp * * *.org *"], "all ends"),
            (&["udp * *:53 * *"], "no ends"),
            (&[], "all ends"),
        ] {
            let running = match once {
                // Nothing at all of TCP.
                "no ends" => once.to_owned(),
                "all ends" => once.to_owned(),
                _ => format!("{once}{peer}"),
            };
            assert_eq!(told(patterns, &[]), [once, &running], "{patterns:?}");
        }
    }

    #[test]
    fn listeners_have_no_peer_to_insist_on() {
        let patterns = ["tcp * * * LISTEN", "tcp * *:443 * *"];
        let [once, running] = told(&patterns, &[]);
        assert_eq!(once, "all ends");
        assert_eq!(running, "ends *:* *:443, and all without a peer");
    }

    #[test]
    fn what_has_no_peer_is_told_by_the_remote_port() {
        for (patterns, expected) in [
            (&["tcp * *:443 * *"][..], false),
            (&["tcp *:22 *:443 * *"], false),
            (&["tcp * * * ESTABLISHED", "udp * * * *"], false),
            (&["tcp *:22 * * *"], true),
            (&["*:443 *"], true),
            (&["tcp * 10.0.0.2:* * *"], true),
            (&["tcp * *:443 * *", "tcp * * * LISTEN"], true),
            (&["tcp * *:0 * CLOSE"], true),
            (&[], true),
        ] {
            let patterns: Vec<String> = patterns.iter().map(|&glob| glob.into()).collect();
            let filter = Filter::new(&patterns, &[]).expect("globs");
            assert_eq!(filter.can_pass_without_peer(), expected, "{patterns:?}");
        }
    }

    #[test]
    fn ignore_counts_where_it_is_certain() {
        let patterns = ["tcp * *:443 * *"];
        for (ignore, once, running) in [
            ("tcp *:22 * * *", "*:22 *:*", true),
            ("*:22 *", "*:* *:22, *:22 *:*", true),
            ("tcp * *:22 * *", "*:* *:22", false),
            ("tcp 10.0.0.2:* * * *", "10.0.0.2:* *:*", false),
            ("tcp * 10.0.0.2:* * *", "*:* 10.0.0.2:*", true),
            ("tcp *:22 * * ESTABLISHED", "", false),
            ("tcp *:22 * *.org *", "", false),
            ("tcp4 *:22 * * *", "", false),
        ] {
            let left_out = match once {
                "" => String::new(),
                once => format!(", but not {once}"),
            };
            let [alone, all] = told(&[], &[ignore]);
            assert_eq!(alone, format!("all ends{left_out}"), "{ignore}");
            assert_eq!(all, "all ends", "{ignore}: the ledger is worth more");
            let told = told(&patterns, &[ignore]);
            assert_eq!(told[0], format!("ends *:* *:443{left_out}"), "{ignore}");
            assert_eq!(
                told[1].contains("but not"),
                running,
                "{ignore}: {}",
                told[1]
            );
        }
    }
}

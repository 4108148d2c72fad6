//! Names against resolvers of the test's own.

use super::*;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

const TTL: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(60);

fn ip(n: u32) -> IpAddr {
    Ipv4Addr::from(n).into()
}

fn named(name: &str) -> Host {
    Host::Named(Name::escaped(name.as_bytes()))
}

fn unknown(why: HostUnknown) -> Host {
    Host::Unknown(why)
}

/// Names, their counters and the wake-ups.
struct Bench {
    names: Names,
    stats: Rc<Stats>,
    woken: mpsc::Receiver<()>,
    found: Vec<(IpAddr, Host)>,
}

impl Bench {
    fn new(
        threads: usize,
        line: usize,
        resolver: impl Fn(IpAddr) -> Result<Vec<u8>, ResolveError> + Send + Sync + 'static,
    ) -> Bench {
        let (tx, woken) = mpsc::channel();
        // A test that is done looks no longer.
        let wake = Arc::new(move || tx.send(()).unwrap_or(()));
        let stats = Rc::new(Stats::default());
        let names = Names::bounded(threads, wake, stats.clone(), Arc::new(resolver), line, 64);
        Bench {
            names,
            stats,
            woken,
            found: Vec::new(),
        }
    }

    fn ask(&mut self, n: u32) -> Lookup {
        let now = Now::read();
        self.names.ask(ip(n), TTL, now.mono + LONG, now)
    }

    fn collect(&mut self) {
        self.woken.recv_timeout(LONG).unwrap();
        self.names.collect(Now::read(), &mut self.found);
    }

    /// Collects until nothing is under way.
    fn settle(&mut self) -> Vec<(IpAddr, Host)> {
        while self.names.is_busy() {
            self.collect();
        }
        std::mem::take(&mut self.found)
    }
}

/// A resolver that blocks until the returned gate is dropped, and tells when it
/// was entered.
fn dead() -> (Resolver, mpsc::Sender<()>, mpsc::Receiver<IpAddr>) {
    let (gate, blocked) = mpsc::channel::<()>();
    let (tx, entered) = mpsc::channel();
    let blocked = Mutex::new(blocked);
    let resolver: Resolver = Arc::new(move |ip| {
        tx.send(ip).unwrap_or(());
        let blocked = blocked.lock().unwrap_or_else(PoisonError::into_inner);
        blocked.recv().unwrap_or(());
        Err(ResolveError::Failed)
    });
    (resolver, gate, entered)
}

#[test]
fn hits_and_misses_are_remembered_for_the_askers_ttl() {
    let mut bench = Bench::new(1, 16, |ip| match ip {
        IpAddr::V4(ip) if ip.octets()[3] == 1 => Ok(b"Host.Example.org.".to_vec()),
        IpAddr::V4(ip) if ip.octets()[3] == 2 => Err(ResolveError::NotFound),
        _ => Err(ResolveError::Failed),
    });
    let answers = [
        named("host.example.org"),
        unknown(HostUnknown::NotFound),
        unknown(HostUnknown::Failed),
    ];
    for n in 1..=3 {
        assert_eq!(bench.ask(n), Lookup::Pending);
    }
    assert!(bench.names.is_busy());
    let found = bench.settle();
    assert_eq!(
        found,
        [1, 2, 3]
            .map(ip)
            .into_iter()
            .zip(answers.clone())
            .collect::<Vec<_>>()
    );
    for (n, answer) in (1..).zip(answers) {
        assert_eq!(bench.ask(n), Lookup::Known(answer));
    }
    assert_eq!(bench.stats.lookups.count(), 3);
    assert_eq!(bench.stats.lookups_failed.count(), 1);

    let now = Now::read();
    let later = Now {
        mono: now.mono + 2 * TTL,
        ..now
    };
    let until = later.mono + LONG;
    let patient = bench.names.ask(ip(1), 3 * TTL, until, later);
    assert_eq!(patient, Lookup::Known(named("host.example.org")));
    assert_eq!(bench.names.ask(ip(1), TTL, until, later), Lookup::Pending);
    bench.settle();
    assert_eq!(bench.stats.lookups.count(), 4);
}

#[test]
fn names_are_made_safe_or_refused() {
    let raw = |raw: &[u8]| usable(raw).map(|name| name.as_str().to_owned());
    assert_eq!(raw(b"A.b-c_d."), Ok("a.b-c_d".into()));
    assert_eq!(raw(b"a b ESTABLISHED"), Ok(r"a\032b\032established".into()));
    assert_eq!(raw(b""), Err(ResolveError::NotFound));
    assert_eq!(raw(b"."), Err(ResolveError::NotFound));
    assert!(raw(&[b'a'; 255]).is_ok());
    assert_eq!(raw(&[b'a'; 256]), Err(ResolveError::Failed));
}

#[test]
fn an_address_is_looked_up_once_at_a_time() {
    let (resolver, gate, entered) = dead();
    let mut bench = Bench::new(4, 16, move |ip| resolver(ip));
    for _ in 0..10 {
        assert_eq!(bench.ask(7), Lookup::Pending);
    }
    assert_eq!(entered.recv_timeout(LONG), Ok(ip(7)));
    drop(gate);
    assert_eq!(bench.settle(), [(ip(7), unknown(HostUnknown::Failed))]);
    assert!(entered.try_recv().is_err());
    assert_eq!(bench.stats.lookups.count(), 1);
}

#[test]
fn a_dead_resolver_is_bounded_and_delays_no_hit() {
    let (dead, gate, entered) = dead();
    let mut bench = Bench::new(2, 8, move |asked| {
        if asked == ip(0) {
            return Ok(b"known".to_vec());
        }
        dead(asked)
    });
    bench.ask(0);
    bench.settle();
    for n in 1..=2 {
        assert_eq!(bench.ask(n), Lookup::Pending);
        entered.recv_timeout(LONG).unwrap();
    }
    // Two are being looked up, eight wait, the rest is told at once.
    for n in 3..=10 {
        assert_eq!(bench.ask(n), Lookup::Pending);
    }
    let overload = Lookup::Known(unknown(HostUnknown::Overload));
    for n in 11..1000 {
        assert_eq!(bench.ask(n), overload);
        assert_eq!(bench.ask(0), Lookup::Known(named("known")));
    }
    assert_eq!(bench.stats.names_overload.count(), 989);
    assert_eq!(bench.names.pending.len(), 10);
    // Dropping does not wait for the two that are stuck.
    drop(bench);
    drop(gate);
}

#[test]
fn given_up_look_ups_make_room_and_come_back_when_asked_again() {
    let (resolver, gate, entered) = dead();
    let mut bench = Bench::new(1, 4, move |ip| resolver(ip));
    assert_eq!(bench.ask(1), Lookup::Pending);
    entered.recv_timeout(LONG).unwrap();
    let now = Now::read();
    for n in 2..=5 {
        let lookup = bench.names.ask(ip(n), TTL, now.mono, now);
        assert_eq!(lookup, Lookup::Pending);
    }
    // The line was full of what nobody waits for; it is of use again for 2.
    assert_eq!(bench.ask(2), Lookup::Pending);
    assert_eq!(bench.ask(6), Lookup::Pending);
    bench.collect();
    assert!(bench.found.is_empty());
    drop(gate);
    let found: Vec<IpAddr> = bench.settle().into_iter().map(|(ip, _)| ip).collect();
    assert_eq!(found, [ip(1), ip(6), ip(2)]);
}

#[test]
fn a_panicking_resolver_is_a_failure() {
    let mut bench = Bench::new(1, 4, |_| panic!("a panic of the test's own"));
    bench.ask(1);
    assert_eq!(bench.settle(), [(ip(1), unknown(HostUnknown::Failed))]);
}

#[test]
fn thousands_of_asks_over_several_threads_are_each_answered() {
    let running = AtomicUsize::new(0);
    let mut bench = Bench::new(4, 32, move |ip| {
        assert!(running.fetch_add(1, Ordering::SeqCst) < 4);
        std::thread::yield_now();
        running.fetch_sub(1, Ordering::SeqCst);
        match ip {
            IpAddr::V4(ip) if u32::from(ip) % 3 == 0 => Err(ResolveError::NotFound),
            ip => Ok(format!("h{ip}").into_bytes()),
        }
    });
    let (mut asked, mut answered) = (HashSet::new(), HashSet::new());
    for n in 0..5000u32 {
        let n = n.wrapping_mul(2_654_435_761) % 500;
        match bench.ask(n) {
            Lookup::Pending => {
                asked.insert(ip(n));
            }
            Lookup::Known(Host::Unknown(HostUnknown::Overload)) => bench.collect(),
            Lookup::Known(host) => assert_eq!(host == unknown(HostUnknown::NotFound), n % 3 == 0),
        }
        answered.extend(bench.found.drain(..).map(|(ip, _)| ip));
        assert!(bench.names.pending.len() <= bench.names.most);
    }
    answered.extend(bench.settle().into_iter().map(|(ip, _)| ip));
    assert_eq!(asked, answered);
}

#[test]
fn skipped_addresses_are_those_no_public_server_knows() {
    for (ip, expected) in [
        ("127.0.0.1", true),
        ("10.1.2.3", true),
        ("172.16.0.1", true),
        ("172.32.0.1", false),
        ("192.168.1.1", true),
        ("169.254.1.1", true),
        ("100.63.255.255", false),
        ("100.64.0.0", true),
        ("100.127.255.255", true),
        ("100.128.0.0", false),
        ("224.0.0.1", true),
        ("239.255.255.255", true),
        ("255.255.255.255", true),
        ("0.0.0.0", true),
        ("0.0.0.1", false),
        ("203.0.113.7", false),
        ("::", true),
        ("::1", true),
        ("fe80::1", true),
        ("fec0::1", false),
        ("fc00::1", true),
        ("fdff::1", true),
        ("ff02::1", true),
        ("2001:db8::1", false),
        ("::ffff:10.0.0.1", true),
        ("::ffff:203.0.113.7", false),
    ] {
        assert_eq!(skipped(ip.parse().unwrap()), expected, "{ip}");
    }
}

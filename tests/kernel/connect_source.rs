//! The hooks, held against those who call connect().
//!
//! Each test watches with every hook that this machine has, one after the other,
//! and lets another process connect: sockwatch's own connects are left out, and a
//! test is sockwatch here. That process is this test once more ([`actor`]), and
//! what it says it did is compared with the records, field by field. A hook sees
//! the whole machine, so records are picked by their cookies and callers.

mod actor;
mod alone;
mod kinds;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use sockwatch::model::{Connect, Family, Origin};
use sockwatch::source::connect::{Connects, Setup};

use crate::netns;
use actor::{Account, Truth};

/// How long a loaded machine may take.
const PATIENCE: Duration = Duration::from_secs(20);

const HOOKS: [Origin; 3] = [Origin::Lsm, Origin::Fentry, Origin::Cgroup];

/// Set where a hook must be had: its word. Without it every hook is tried, and one
/// that is refused is skipped.
const HOOK: &str = "SOCKWATCH_TEST_HOOK";

/// Runs `body` with each hook, each time with this process as the one that
/// watches; `act` is what the other process does.
fn with_each_hook(name: &str, act: fn() -> Account, body: impl Fn(Origin, Connects)) {
    netns::run(name, || {
        if alone::perform() || actor::perform(act) {
            return;
        }
        let wanted = std::env::var(HOOK).ok();
        let mut reasons = Vec::new();
        for hook in HOOKS {
            if wanted
                .as_ref()
                .is_some_and(|wanted| wanted != hook.as_str())
            {
                continue;
            }
            match open(hook) {
                Ok(connects) => {
                    body(hook, connects);
                    println!("{name}: {}", hook.as_str());
                }
                Err(reason) if wanted.is_some() => panic!("{reason}"),
                Err(reason) => reasons.push(reason),
            }
        }
        // Not netns::skip, which takes no excuse as root: under a lockdown or in a
        // container a hook is not to be had, whoever asks. One test tells of each
        // hook, the others when there is none.
        if reasons.len() == HOOKS.len() || name.ends_with("every_kind_of_connect") {
            for reason in reasons {
                netns::visibly(&format!("SKIPPED {name}: {reason}"));
            }
        }
    });
}

/// Opens a hook, or says why it cannot be had.
fn open(hook: Origin) -> Result<Connects, String> {
    let (connects, tried) = Connects::open(Some(hook), Rc::default());
    connects.ok_or_else(|| match &tried[..] {
        [tried] => format!("{}: {}", hook.as_str(), tried.reason),
        other => panic!("a hook that fails says so once, not {other:?}"),
    })
}

fn once() -> Account {
    actor::burst(1)
}

fn thousand() -> Account {
    actor::burst(1000)
}

fn three_thousand() -> Account {
    actor::burst(3000)
}

fn twenty_thousand() -> Account {
    actor::burst(20_000)
}

/// Every record of a connect() that is over.
fn drain(connects: &mut Connects) -> Vec<Connect> {
    let mut all = Vec::new();
    let until = Instant::now() + PATIENCE;
    loop {
        let more = connects
            .drain(100, &mut |connect| all.push(connect))
            .expect("the ring can be read");
        if !more {
            if !connects.blocked() {
                return all;
            }
            assert!(Instant::now() < until, "a record is never finished");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What a record must say of something that was done.
fn agrees(hook: Origin, btf: bool, truth: &Truth, connect: &Connect) {
    let name = &truth.name;
    assert_eq!(connect.origin, hook, "{name}");
    assert_eq!(connect.remote.to_string(), truth.remote, "{name}");
    let family = if truth.v6 { Family::V6 } else { Family::V4 };
    assert_eq!(connect.family, family, "{name}");
    assert_eq!(connect.v4_mapped, truth.mapped, "{name}");
    assert_eq!(connect.caller.pid, truth.pid, "{name}");
    assert_eq!(connect.caller.tid, truth.tid, "{name}");
    assert_eq!(connect.caller.comm.to_string(), truth.comm, "{name}");
    assert_eq!(connect.uid, truth.uid, "{name}");
    assert!(
        (truth.before_ns..=truth.after_ns).contains(&connect.at_ns),
        "{name}: {} is not within {}..={}",
        connect.at_ns,
        truth.before_ns,
        truth.after_ns
    );
    if let Some(cgroup) = truth.cgroup {
        assert_eq!(connect.cgroup_id, cgroup, "{name}");
    }
    let here = u32::try_from(netns::inode()).expect("32 bits");
    if btf || truth.netns == here {
        let netns = connect.netns.map(|netns| netns.0);
        assert_eq!(netns, Some(truth.netns), "{name}");
    } else {
        assert_eq!(connect.netns, None, "{name}");
    }
    assert_eq!(connect.mptcp, btf && truth.mptcp, "{name}");
}

/// Lets everything be done, and holds the records against it.
fn hold_every_kind(name: &str, hook: Origin, btf: bool, mut connects: Connects) {
    let (pid, Account { truths, .. }) = actor::run(name);
    let mut seen = drain(&mut connects);
    seen.retain(|connect| connect.caller.pid == pid);
    let mut expected = 0;
    let is_told = |cookie| truths.iter().any(|one| !one.mptcp && one.cookie == cookie);
    for truth in &truths {
        // sendto() with MSG_FASTOPEN does not come by security_socket_connect().
        let times = match hook {
            Origin::Cgroup => truth.times,
            _ if truth.fast_open => 0,
            _ => truth.times,
        };
        // `cgroup` tells the cookie of an MPTCP socket's subflow, which the caller
        // cannot read. The kernel may give its destination's port twice.
        let is_it = |connect: &&Connect| match truth.mptcp {
            true => connect.remote.to_string() == truth.remote && !is_told(connect.cookie.0),
            false => connect.cookie.0 == truth.cookie,
        };
        let records: Vec<&Connect> = seen.iter().filter(is_it).collect();
        let title = format!("{} with {}", truth.name, hook.as_str());
        assert_eq!(records.len(), times, "{title}: {records:?}");
        for connect in records {
            agrees(hook, btf, truth, connect);
        }
        expected += times;
    }
    assert_eq!(seen.len(), expected, "more than was done: {seen:?}");
    assert_eq!(connects.take_lost().expect("the count can be read"), 0);
    println!(
        "{name}: {} kinds, {expected} records with {}",
        truths.len(),
        hook.as_str()
    );
}

#[test]
fn every_kind_of_connect() {
    let name = "connect_source::every_kind_of_connect";
    with_each_hook(name, kinds::act, |hook, connects| {
        let btf = std::fs::exists("/sys/kernel/btf/vmlinux").expect("/sys is mounted");
        hold_every_kind(name, hook, btf, connects);
    });
}

#[test]
fn without_btf_there_is_one_hook() {
    let name = "connect_source::without_btf_there_is_one_hook";
    with_each_hook(name, kinds::act, |hook, _| {
        let setup = Setup {
            btf: false,
            ..Setup::default()
        };
        let (connects, tried) = Connects::open_with(Some(hook), setup, Rc::default());
        assert_eq!(tried.len(), 1, "{tried:?}");
        assert!(tried[0].reason.contains("BTF"), "{tried:?}");
        assert_eq!(connects.is_some(), hook == Origin::Cgroup);
        if let Some(connects) = connects {
            hold_every_kind(name, hook, false, connects);
        }
    });
}

#[test]
fn a_burst_that_nobody_reads_is_kept_whole() {
    let name = "connect_source::a_burst_that_nobody_reads_is_kept_whole";
    with_each_hook(name, twenty_thousand, |_, mut connects| {
        let (pid, Account { burst, .. }) = actor::run(name);
        let mut times: HashMap<u64, usize> = HashMap::new();
        for connect in drain(&mut connects) {
            if connect.caller.pid == pid {
                *times.entry(connect.cookie.0).or_default() += 1;
            }
        }
        assert_eq!(connects.take_lost().expect("the count can be read"), 0);
        assert_eq!(times.len(), 20_000);
        for cookie in burst {
            assert_eq!(times.get(&cookie), Some(&1));
        }
    });
}

#[test]
fn a_full_ring_counts_what_it_lost() {
    let name = "connect_source::a_full_ring_counts_what_it_lost";
    with_each_hook(name, thousand, |hook, mut all| {
        // The second ring is large enough to tell how many others connected.
        let setup = Setup {
            ring_bytes: 1,
            ..Setup::default()
        };
        let (tiny, _) = Connects::open_with(Some(hook), setup, Rc::default());
        let mut tiny = tiny.expect("a small ring is a ring");
        let (mut told, mut others) = (0, 0);
        // Twice, since what was lost is told once, and then there is room again.
        for round in 1..=2 {
            let (pid, _) = actor::run(name);
            let kept = drain(&mut tiny).len() as u64;
            let lost = tiny.take_lost().expect("the count can be read");
            // 4 KiB hold 42; pages may be larger elsewhere.
            assert!(lost > 0 && kept >= 42, "{kept} kept and {lost} lost");
            told += kept + lost;
            others += drain(&mut all)
                .iter()
                .filter(|connect| connect.caller.pid != pid)
                .count() as u64;
            assert!(
                (round * 1000..=round * 1000 + others).contains(&told),
                "{told} told of {round} times 1000, with {others} of others"
            );
        }
        assert_eq!(all.take_lost().expect("the count can be read"), 0);
        println!("{name}: {told} told, {others} of them of others");
    });
}

#[test]
fn each_record_wakes_its_reader() {
    let name = "connect_source::each_record_wakes_its_reader";
    with_each_hook(name, three_thousand, |_, mut connects| {
        let mut poll = Poll::new().expect("epoll is to be had");
        // Edge-triggered, as in the reactor: what is not announced is not read.
        poll.registry()
            .register(
                &mut SourceFd(&connects.as_raw_fd()),
                Token(0),
                Interest::READABLE,
            )
            .expect("a ring can be polled");
        let acting = actor::spawn(name);
        let pid = acting.id();
        let mut events = Events::with_capacity(1);
        let until = Instant::now() + PATIENCE;
        let mut seen = 0;
        while seen < 3000 {
            poll.poll(&mut events, Some(Duration::from_secs(1)))
                .expect("epoll_wait");
            if !events.is_empty() {
                seen += drain(&mut connects)
                    .iter()
                    .filter(|connect| connect.caller.pid == pid)
                    .count();
            }
            assert!(Instant::now() < until, "{seen} of 3000 were announced");
        }
        actor::finish(acting);
    });
}

#[test]
fn sockwatch_itself_is_left_out() {
    let name = "connect_source::sockwatch_itself_is_left_out";
    with_each_hook(name, once, |_, mut connects| {
        let own = || {
            let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
            TcpStream::connect(nobody).expect_err("nobody listens there");
        };
        own();
        std::thread::spawn(own).join().expect("it does not panic");
        let (pid, _) = actor::run(name);
        let callers: Vec<u32> = drain(&mut connects)
            .iter()
            .map(|connect| connect.caller.pid)
            .collect();
        assert!(callers.contains(&pid), "{callers:?}");
        assert!(!callers.contains(&std::process::id()), "{callers:?}");
    });
}

#[test]
fn in_a_pid_namespace_too() {
    let name = "connect_source::in_a_pid_namespace_too";
    with_each_hook(name, Account::default, |hook, _| {
        alone::check_in_pid_namespace(name, hook)
    });
}

#[test]
fn a_hook_that_is_dropped_is_gone() {
    let name = "connect_source::a_hook_that_is_dropped_is_gone";
    with_each_hook(name, once, |hook, connects| {
        drop(connects);
        let mut connects = open(hook).expect("and again");
        let (pid, _) = actor::run(name);
        let mine = drain(&mut connects);
        let mine = mine.iter().filter(|connect| connect.caller.pid == pid);
        assert_eq!(mine.count(), 1);
    });
}

#[test]
fn what_is_forced_is_tried_alone() {
    let (connects, tried) = Connects::open(Some(Origin::SockDiag), Rc::default());
    assert!(connects.is_none() && tried.is_empty(), "{tried:?}");
    // Where no hook is to be had each says why, in its place.
    let (connects, tried) = Connects::open(None, Rc::default());
    let got = connects.map(|connects| connects.origin());
    let expected: Vec<Origin> = HOOKS
        .into_iter()
        .filter(|hook| got.is_none_or(|got| *hook < got))
        .collect();
    let failed: Vec<Origin> = tried
        .iter()
        .map(|tried| tried.hook)
        .filter(|hook| Some(*hook) != got)
        .collect();
    assert_eq!(failed, expected, "{tried:?}");
    for tried in tried {
        assert!(
            !tried.reason.contains('\n') && tried.reason.len() < 500,
            "{tried:?}"
        );
    }
}

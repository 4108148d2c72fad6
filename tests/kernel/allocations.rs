//! What must not ask for memory does not: a quiet tick of the whole daemon, a row
//! that says nothing new, an event that is written.
//!
//! Every allocation of this process is counted, whichever thread makes it. Each
//! test runs in a process of its own ([`netns::run`]), so that nobody else's are
//! among them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::os::unix::thread::JoinHandleExt;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sockwatch::config::{self, Provenance};
use sockwatch::emit::{Format, Json, Text};
use sockwatch::model::{
    Action, Change, Data, Event, Evidence, Host, Judge, Life, Listener, Needs, Netns, Now, Owner,
    SensorIx, SocketKey, Sought, Traffic, Verdict,
};
use sockwatch::sensor::{Listing, NetSocket, View};
use sockwatch::source::diag::{Progress, Scope};
use sockwatch::source::dumps::{Asked, Dumps};
use sockwatch::stats::Stats;

use crate::churn::allow_descriptors;
use crate::daemon::PATIENCE;
use crate::netns;
use crate::sock::{Domain, Sock};

/// The allocator of every test here, which counts.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static MADE: AtomicU64 = AtomicU64::new(0);

// SAFETY: all is done by `System`, as it was asked of this one.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MADE.fetch_add(1, Ordering::Relaxed);
        // SAFETY: what holds for this call holds for that one.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        MADE.fetch_add(1, Ordering::Relaxed);
        // SAFETY: what holds for this call holds for that one.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        MADE.fetch_add(1, Ordering::Relaxed);
        // SAFETY: what holds for this call holds for that one.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: what holds for this call holds for that one.
        unsafe { System.dealloc(block, layout) }
    }
}

/// How many allocations `work` makes, and everybody else meanwhile.
fn made_by(work: impl FnOnce()) -> u64 {
    let before = MADE.load(Ordering::Relaxed);
    work();
    MADE.load(Ordering::Relaxed) - before
}

/// How often this thread of ours has waited.
fn waits(thread: libc::pid_t) -> u64 {
    let status = fs::read_to_string(format!("/proc/self/task/{thread}/status"));
    let status = status.expect("it runs");
    let mut lines = status.lines();
    let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    let count = count.expect("the kernel counts them").trim();
    count.parse().expect("a number")
}

/// The daemon as it is, in a thread: when it has come to rest, ticks ask for
/// nothing, the whole way from the timer to the gate and back.
#[test]
fn a_quiet_tick_makes_none() {
    netns::run("allocations::a_quiet_tick_makes_none", || {
        const TICKS: u64 = 100;
        let listener = Sock::listener(Domain::V4);
        let _pairs: Vec<_> = (0..200).map(|_| Sock::pair(&listener)).collect();
        let settings = "daemon: {interval: 10ms, gate: 1h, stdout: false}\n\
                        sensors: {sockets: {listener: net.socket}}\n";
        let (tell, told) = mpsc::channel();
        let daemon = thread::spawn(move || {
            let settings = config::load_bytes("settings", settings.into(), &[]);
            let settings = settings.unwrap_or_else(|problems| panic!("{problems:?}"));
            // SAFETY: gettid(2) takes nothing and cannot fail.
            tell.send(unsafe { libc::gettid() }).expect("waited for");
            sockwatch::daemon::run(settings, Format::Json, Provenance::BuiltIn)
        });
        let id = told.recv().expect("it starts");
        let deadline = Instant::now() + PATIENCE;
        // What it reads at first, and who has it.
        let second = Duration::from_secs(1);
        while made_by(|| thread::sleep(second)) > 0 {
            assert!(Instant::now() < deadline, "it does not come to rest");
        }
        let mut ticks = 0;
        while ticks < TICKS {
            assert!(Instant::now() < deadline, "only {ticks} ticks");
            let before = waits(id);
            let made = made_by(|| thread::sleep(second));
            let more = waits(id) - before;
            assert_eq!(made, 0, "in {more} ticks");
            ticks += more;
        }
        // To that thread alone, which has the signal blocked and reads it.
        // SAFETY: the thread has not been joined.
        let failed = unsafe { libc::pthread_kill(daemon.as_pthread_t(), libc::SIGTERM) };
        assert_eq!(failed, 0, "it runs");
        let end = daemon.join().expect("it does not panic");
        end.expect("it ends as asked");
    });
}

/// A sensor of one view, which takes in everything and tells nobody.
struct Quiet;

impl Judge for Quiet {
    fn owned(&mut self, _: SocketKey, _: Owner, _: u32) {}

    fn open(&mut self, _: Change, _: Now) -> Verdict {
        Verdict::Entered(Host::Unasked)
    }

    fn close(&mut self, _: Change, _: Now) {}
}

/// The real table, read as a tick reads it.
struct Reader {
    scope: Scope,
    sensor: NetSocket,
}

impl Reader {
    fn new() -> Reader {
        let stats = Rc::new(Stats::default());
        let view = View {
            sensor: SensorIx(0),
            initial: false,
            time_wait: false,
            syn_recv: false,
            sought: Sought::ALL,
        };
        let scope = Scope::open(Netns(1), Rc::clone(&stats)).expect("a scope");
        let (needs, views) = (Needs::EVERYTHING, vec![view]);
        Reader {
            sensor: NetSocket::new(scope.netns(), views, needs, stats, Now::read()),
            scope,
        }
    }

    /// All dumps of one tick.
    fn tick(&mut self) {
        let Reader { scope, sensor } = self;
        let mut dumps = Dumps::default();
        dumps.ask(Needs::EVERYTHING);
        let now = Now::read();
        while let Some(Asked { coverage, .. }) = dumps.next(now.mono, false) {
            scope.begin(coverage, now).expect("a dump begins");
            sensor.begin_dump(coverage, now);
            loop {
                match scope.read(now, &mut |row| sensor.row(row, now)) {
                    Progress::More => {}
                    Progress::Done(_) => break,
                    other => panic!("a dump ended as {other:?}"),
                }
            }
            sensor.end_dump(now, &mut Quiet);
        }
    }
}

/// A dump asks for what its request takes, however many sockets it finds.
#[test]
fn an_unchanged_row_makes_none() {
    netns::run("allocations::an_unchanged_row_makes_none", || {
        const MANY: usize = 1500;
        allow_descriptors(2 * MANY as u64 + 200);
        let listener = Sock::listener(Domain::V4);
        let mut held = Vec::new();
        let mut each = Vec::new();
        for pairs in [10, MANY] {
            while held.len() < pairs {
                held.push(Sock::pair(&listener));
            }
            let mut reader = Reader::new();
            reader.tick();
            assert_eq!(reader.sensor.len(), 2 * pairs + 1);
            // The second puts the table into the order of the dump.
            let made = [(); 3].map(|()| made_by(|| reader.tick()));
            assert_eq!(reader.sensor.len(), 2 * pairs + 1);
            println!("{} sockets: {made:?} allocations", 2 * pairs + 1);
            each.push(made);
        }
        assert_eq!(each[0], each[1], "what few sockets make, many do");
        assert!(each[0].iter().all(|made| *made <= 8), "{each:?} a tick");
    });
}

/// The rows of a table as events of each kind, into a buffer that has held one.
#[test]
fn an_event_into_a_warm_buffer_makes_none() {
    netns::run(
        "allocations::an_event_into_a_warm_buffer_makes_none",
        || {
            let mut sockets = Vec::new();
            for domain in [Domain::V4, Domain::V6] {
                let listener = Sock::listener(domain);
                sockets.extend((0..20).flat_map(|_| <[Sock; 2]>::from(Sock::pair(&listener))));
                let udp = Sock::udp(domain);
                udp.bind_loopback();
                sockets.extend([listener, udp]);
            }
            let mut reader = Reader::new();
            reader.tick();
            let mut events = Vec::new();
            reader
                .sensor
                .list(&mut Listing::default(), usize::MAX, &mut |mut data| {
                    let (action, life, traffic) = match events.len() % 2 {
                        0 => (Action::Opened, None, None),
                        _ => (
                            Action::Closed,
                            Some(Life::Seen { ms: 1503 }),
                            Some(Traffic {
                                bytes_sent: Some(1200),
                                bytes_received: Some(88_123),
                                segments_sent: 17,
                                segments_received: 61,
                                retransmits: 0,
                                rtt_us: Some(10_233),
                            }),
                        ),
                    };
                    data.action = Some((action, Evidence::Dump));
                    (data.life, data.traffic) = (life, traffic);
                    let remote = data.id.remote;
                    events.push(Event {
                        ts: Now::read().wall,
                        seq: events.len() as u64,
                        eid: format!("sockets|net.socket|{}@{remote}|0", action.as_str()),
                        sensor: "sockets".into(),
                        listener: Listener::NetSocket,
                        tag: Some("net.socket".into()),
                        data: Data::Socket(data),
                    });
                });
            assert!(events.len() >= sockets.len(), "{} events", events.len());
            let (json, text) = (Json::new("edge-7"), Text::new(true));
            let mut out = Vec::with_capacity(4096);
            for event in &events {
                let made = made_by(|| {
                    out.clear();
                    json.event(event, &mut out).expect("a Vec takes any text");
                    text.event(event, &mut out).expect("a Vec takes any text");
                });
                assert!(out.len() > 300, "both are written");
                assert_eq!(made, 0, "{}", String::from_utf8_lossy(&out));
            }
        },
    );
}

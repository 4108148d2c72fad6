//! The figures, each with its peer.

use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use sockwatch::emit::Json;
use sockwatch::model::{
    Change, Coverage, Data, Event, Host, Judge, Life, Listener, Needs, Netns, Now, Proto, Row,
    SensorIx, SocketData, Step, Traffic, Verdict,
};
use sockwatch::sensor::{NetSocket, View};
use sockwatch::source::Dumps;
use sockwatch::source::Group;
use sockwatch::source::diag::{Progress, Scope};
use sockwatch::stats::Stats;
use sockwatch::wire::request;

use super::Outcome;
use super::sample::{Cost, Pairs, Spread, Whose};
use super::world::{self, SOCKWATCH};

/// The buffer of a dump: the kernel fills no more of it.
const DUMP_ROOM: usize = 32 * 1024;
const NLMSG_DONE: u16 = 3;
/// Each comparison ends after this, however slow the machine is.
const BUDGET: Duration = Duration::from_secs(10);

/// One line of the table.
pub struct Line {
    figure: &'static str,
    value: String,
    peer: String,
    ratio: String,
    what: &'static str,
}

impl Line {
    /// Prints the table.
    pub fn print(lines: &[Line]) {
        let row = |figure: &str, value: &str, peer: &str, ratio: &str, what: &str| {
            println!("{figure:24} {value:>27} {peer:>27} {ratio:>6}  {what}");
        };
        row("FIGURE", "VALUE", "PEER", "RATIO", "WHAT AGAINST WHAT");
        for line in lines {
            row(line.figure, &line.value, &line.peer, &line.ratio, line.what);
        }
    }

    fn alone(figure: &'static str, value: String, what: &'static str) -> Line {
        Line {
            figure,
            value,
            peer: String::new(),
            ratio: String::new(),
            what,
        }
    }

    /// A time in `unit`s of `scale` ns.
    fn paired(
        figure: &'static str,
        (ours, peer, ratio): (Spread, Spread, f64),
        (unit, scale): (&str, f64),
        what: &'static str,
    ) -> Line {
        let shown = |spread: Spread| {
            let digits = if spread.median / scale < 100.0 { 2 } else { 0 };
            let [median, least, most] =
                [spread.median, spread.least, spread.most].map(|nanos| nanos / scale);
            format!("{median:.digits$} ({least:.digits$} to {most:.digits$}) {unit}")
        };
        Line {
            figure,
            value: shown(ours),
            peer: shown(peer),
            ratio: format!("{ratio:.3}"),
            what,
        }
    }
}

/// A sensor of one view whose judge lets everything in and does nothing.
struct Quiet;

impl Judge for Quiet {
    fn open(&mut self, _change: Change, _now: Now) -> Verdict {
        Verdict::Entered(Host::Unasked)
    }

    fn close(&mut self, _change: Change, _now: Now) {}
}

const VIEW: View = View {
    sensor: SensorIx(0),
    initial: false,
    time_wait: false,
    syn_recv: false,
};

/// The dumps of one tick.
fn tick() -> Vec<Coverage> {
    let mut dumps = Dumps::default();
    dumps.ask(Needs::EVERYTHING);
    let now = Now::read();
    std::iter::from_fn(|| dumps.next(now.mono)).collect()
}

/// One tick: dumps everything and gives the rows of each dump to `feed`.
fn dump(
    scope: &mut Scope,
    sensor: &mut NetSocket,
    mut feed: impl FnMut(&mut NetSocket, Row, Now),
    mut end: impl FnMut(&mut NetSocket, Now),
) -> Outcome<()> {
    for coverage in tick() {
        let now = Now::read();
        scope
            .begin(coverage, now)
            .map_err(|error| error.to_string())?;
        sensor.begin_dump(coverage, now);
        loop {
            match scope.read(now, &mut |row| feed(sensor, row, now)) {
                Progress::More => {}
                Progress::Done(_) => break,
                other => return Err(format!("a dump ended as {other:?}").into()),
            }
        }
        end(sensor, now);
        sensor.end_dump(now, &mut Quiet);
    }
    Ok(())
}

fn dump_and_diff(scope: &mut Scope, sensor: &mut NetSocket) -> Outcome<()> {
    dump(scope, sensor, NetSocket::row, |_, _| {})
}

/// Fills the table as that of a daemon which has run for long: in an order that
/// has nothing to do with that of a dump.
fn fill_shuffled(scope: &mut Scope, sensor: &mut NetSocket) -> Outcome<usize> {
    let rows = RefCell::new(Vec::new());
    let mut count = 0;
    dump(
        scope,
        sensor,
        |_, row, _| rows.borrow_mut().push(row),
        |sensor, now| {
            let mut rows = rows.take();
            rows.sort_by_key(|row: &Row| row.cookie.0.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            count += rows.len();
            rows.into_iter().for_each(|row| sensor.row(row, now));
        },
    )?;
    Ok(count)
}

/// The same requests, and nothing done with what comes.
fn bare(socket: &Socket, buffer: &mut [u8]) -> Outcome<u64> {
    let mut bytes = 0;
    for (seq, coverage) in tick().into_iter().enumerate() {
        socket.send_to(
            &request::dump(coverage, seq as u32),
            &SocketAddr::new(0, 0),
            0,
        )?;
        loop {
            let mut window = &mut buffer[..];
            let length = socket.recv(&mut window, 0)?;
            bytes += length as u64;
            // The end has a datagram of its own; it is 20 bytes long.
            if u16::from_ne_bytes([buffer[4], buffer[5]]) == NLMSG_DONE {
                break;
            }
        }
    }
    Ok(bytes)
}

/// Dump and diff of a table in which nothing changes, against a bare loop.
pub fn diff() -> Outcome<Vec<Line>> {
    let stats = Rc::new(Stats::default());
    let mut scope = Scope::open(Netns(sockwatch::sys::netns()?), Rc::clone(&stats))?;
    let mut sensor = NetSocket::new(
        scope.netns(),
        vec![VIEW],
        Needs::EVERYTHING,
        stats,
        Now::read(),
    );
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    let mut buffer = vec![0; DUMP_ROOM];
    let rows = fill_shuffled(&mut scope, &mut sensor)?;
    if rows != sensor.len() {
        return Err(format!("{rows} rows made {} entries", sensor.len()).into());
    }
    let pairs = Pairs::take(
        200,
        BUDGET,
        || Cost::of(Whose::Mine, || dump_and_diff(&mut scope, &mut sensor)).map(|(cost, ())| cost),
        || Cost::of(Whose::Mine, || bare(&socket, &mut buffer)).map(|(cost, _)| cost),
    )?;
    let row = ("ns/row", rows.max(1) as f64);
    let what = "Scope + NetSocket, no row changed : bare recv loop";
    Ok(vec![
        Line::paired(
            "dump and diff, wall",
            pairs.spread(|cost| cost.wall),
            row,
            what,
        ),
        Line::paired(
            "dump and diff, CPU",
            pairs.spread(|cost| cost.cpu),
            row,
            "the same",
        ),
    ])
}

fn run(command: &mut Command) -> Outcome<()> {
    let status = command.stdout(Stdio::null()).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {status}").into())
    }
}

/// `--dump` against `ss`, both into /dev/null.
pub fn one_shot(sockets: usize) -> Outcome<Vec<Line>> {
    let ss = || {
        let mut command = Command::new("ss");
        command.arg("-tuanH");
        command
    };
    let sockwatch = |format| {
        let mut command = Command::new(SOCKWATCH);
        command.args(["--dump", "--format", format]);
        command
    };
    let Ok(listed) = ss().output() else {
        return Ok(vec![Line::alone(
            "--dump",
            "-".into(),
            "there is no ss to compare it with",
        )]);
    };
    let ours = sockwatch("json").output()?;
    let count = |output: &[u8]| output.iter().filter(|byte| **byte == b'\n').count();
    let (ours, theirs) = (count(&ours.stdout), count(&listed.stdout));
    if ours != theirs || ours < sockets {
        return Err(format!("--dump lists {ours} sockets, ss {theirs}").into());
    }
    let mut lines = Vec::new();
    for (format, figures, whats) in [
        (
            "json",
            ["--dump json, wall", "--dump json, CPU"],
            [
                "sockwatch --dump --format json : ss -tuanH, to /dev/null",
                "the same",
            ],
        ),
        (
            "text",
            ["--dump text, wall", "--dump text, CPU"],
            [
                "sockwatch --dump --format text : ss -tuanH, to /dev/null",
                "the same",
            ],
        ),
    ] {
        let pairs = Pairs::take(
            50,
            BUDGET,
            || Cost::of(Whose::Children, || run(&mut sockwatch(format))).map(|(cost, ())| cost),
            || Cost::of(Whose::Children, || run(&mut ss())).map(|(cost, ())| cost),
        )?;
        let row = ("ns/row", ours as f64);
        lines.push(Line::paired(
            figures[0],
            pairs.spread(|cost| cost.wall),
            row,
            whats[0],
        ));
        lines.push(Line::paired(
            figures[1],
            pairs.spread(|cost| cost.cpu),
            row,
            whats[1],
        ));
    }
    Ok(lines)
}

/// Renders every change as the event that it would be.
struct Rendering {
    json: Json,
    events: u64,
    out: Vec<u8>,
}

impl Rendering {
    fn render(&mut self, change: Change, now: Now, life: Option<Life>, traffic: Option<Traffic>) {
        self.events += 1;
        let action = change.action();
        let event = Event {
            ts: now.wall,
            seq: self.events,
            eid: format!(
                "sockets|net.socket|{}@{}|0",
                action.as_str(),
                change.id.remote
            ),
            sensor: "sockets".into(),
            listener: Listener::NetSocket,
            tag: Some("net.socket".into()),
            data: Data::Socket(SocketData {
                action: Some((action, change.evidence)),
                id: change.id,
                wiped: change.wiped,
                host: change.host,
                state: change.state,
                direction: change.direction,
                user: None,
                process: change.process,
                holders: change.holders,
                cmdline: false,
                cookie: change.key.cookie,
                netns: change.key.netns,
                owner: change.owner,
                between_ticks: change.between_ticks,
                life,
                traffic,
            }),
        };
        self.out.clear();
        self.json
            .event(&event, &mut self.out)
            .expect("a Vec takes any text");
    }
}

impl Judge for Rendering {
    fn open(&mut self, change: Change, now: Now) -> Verdict {
        self.render(change, now, None, None);
        Verdict::Entered(Host::Unasked)
    }

    fn close(&mut self, change: Change, now: Now) {
        if let Step::Closed { life, traffic } = change.step {
            self.render(change, now, life, traffic);
        }
    }
}

/// Receives notices until there is none, and does nothing with them.
fn hear(socket: &Socket, buffer: &mut [u8]) -> io::Result<u32> {
    let mut told = 0;
    loop {
        match socket.recv(&mut &mut buffer[..], 0) {
            Ok(_) => told += 1,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(told),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Notices to lines of JSON, against a bare loop that hears the same notices.
pub fn notices() -> Outcome<Vec<Line>> {
    let stats = Rc::new(Stats::default());
    let mut scope = Scope::open(Netns(sockwatch::sys::netns()?), Rc::clone(&stats))?;
    let mut heard = scope.open_notices()?;
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    let room = heard.request_buffer(4 << 20)?.notices;
    for group in Group::ALL
        .into_iter()
        .filter(|group| group.proto == Proto::Tcp)
    {
        heard.join(group)?;
        socket.add_membership(group.number())?;
    }
    socket.set_non_blocking(true)?;
    let netns = scope.netns();
    let mut sensor = NetSocket::new(netns, vec![VIEW], Needs::EVERYTHING, stats, Now::read());
    dump_and_diff(&mut scope, &mut sensor)?;
    let mut judge = Rendering {
        json: Json::new("bench"),
        events: 0,
        out: Vec::new(),
    };
    let (listener, mut buffer) = (TcpListener::bind("0.0.0.0:0")?, vec![0; 4096]);
    // The bare socket has the default room: 166 notices where this was written.
    let batch = (room / 2).min(150) / 2;
    // What held the sockets of the other figures may still be ending.
    thread::sleep(Duration::from_millis(500));
    heard.drain(usize::MAX, &mut |_| {})?;
    hear(&socket, &mut buffer)?;
    let (mut runs, mut made) = (Vec::new(), 0);
    for turn in 0..100 {
        for number in 0..batch {
            drop(world::connection(&listener, turn * batch + number)?);
        }
        // The kernel writes notices from a work queue, behind the close.
        thread::sleep(Duration::from_millis(20));
        let now = Now::read();
        let before = made;
        let (ours, drained) = Cost::of(Whose::Mine, || {
            heard.drain(usize::MAX, &mut |notice| {
                made += 1;
                sensor.notice(notice, now, &mut judge);
            })
        })?;
        let (peer, told) = Cost::of(Whose::Mine, || hear(&socket, &mut buffer))?;
        if drained.overrun || told == 0 || told != made - before {
            continue; // too many, or some came between the two
        }
        let each = told;
        runs.push((
            Cost {
                wall: ours.wall / each,
                cpu: ours.cpu / each,
            },
            Cost {
                wall: peer.wall / each,
                cpu: peer.cpu / each,
            },
        ));
    }
    if runs.is_empty() {
        return Err("no notices came".into());
    }
    let spread = Pairs::from(runs).spread(|cost| cost.cpu);
    let rate = format!("{:.0}/s", 1e9 / spread.0.median);
    let events = format!(
        "{:.2} events a notice",
        judge.events as f64 / f64::from(made)
    );
    let mut rate = Line::alone(
        "notices, one core",
        rate,
        "the rate at which that is all of one core",
    );
    rate.peer = events;
    Ok(vec![
        Line::paired(
            "notice, CPU",
            spread,
            ("ns", 1.0),
            "drain + NetSocket + JSON, born and dead between ticks : bare recv loop",
        ),
        rate,
    ])
}

/// What a tracked socket costs in memory.
pub fn memory(idle: u64, full: u64, sockets: usize) -> Vec<Line> {
    let mib = |bytes: u64| format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20));
    let each = full.saturating_sub(idle) as f64 / sockets.max(1) as f64;
    vec![
        Line::alone("RSS, no sockets", mib(idle), "VmRSS of a daemon"),
        Line::alone("RSS, these sockets", mib(full), "the same"),
        Line::alone("RSS a socket", format!("{each:.0} B"), "their difference"),
    ]
}

/// The size of the program.
pub fn size() -> Outcome<Line> {
    let bytes = std::fs::metadata(SOCKWATCH)?.len();
    Ok(Line::alone(
        "binary, stripped",
        format!("{bytes} B ({:.2} MiB)", bytes as f64 / f64::from(1 << 20)),
        "cargo build --release",
    ))
}

//! Dumps: of a daemon against a bare loop, and of `--dump` against `ss` and
//! against the text that the kernel makes itself.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use sockwatch::model::{
    Change, Coverage, Host, Judge, Needs, Netns, Now, Row, SensorIx, Sought, StateGroups, Verdict,
};
use sockwatch::sensor::{NetSocket, View};
use sockwatch::source::diag::{Progress, Scope};
use sockwatch::source::dumps::Dumps;
use sockwatch::stats::Stats;
use sockwatch::sys::Netlink;
use sockwatch::wire::request;

use super::Outcome;
use super::daemon::SOCKWATCH;
use super::sample::{Cost, Pairs, Whose};
use super::table::{Line, Unit};

/// The buffer of a dump: the kernel fills no more of it.
const DUMP_ROOM: usize = 32 * 1024;
const NLMSG_DONE: u16 = 3;
/// Each comparison ends after this, however slow the machine is.
const BUDGET: Duration = Duration::from_secs(10);

/// A sensor of one view whose judge lets everything in and does nothing.
struct Quiet;

impl Judge for Quiet {
    fn owned(&mut self, _: sockwatch::model::SocketKey, _: sockwatch::model::Owner, _: u32) {}

    fn open(&mut self, _change: Change, _now: Now) -> Verdict {
        Verdict::Entered(Host::Unasked)
    }

    fn close(&mut self, _change: Change, _now: Now) {}
}

/// A view of everything.
pub const VIEW: View = View {
    sensor: SensorIx(0),
    initial: false,
    time_wait: false,
    syn_recv: false,
    sought: Sought::ALL,
};

/// The dumps that it takes.
fn dumps_of(needs: Needs) -> Vec<Coverage> {
    let mut dumps = Dumps::default();
    dumps.ask(needs);
    let now = Now::read();
    let next = || dumps.next(now.mono, false).map(|asked| asked.coverage);
    std::iter::from_fn(next).collect()
}

/// One tick: dumps everything and gives the rows of each dump to `feed`.
fn dump(
    scope: &mut Scope,
    sensor: &mut NetSocket,
    mut feed: impl FnMut(&mut NetSocket, Row, Now),
    mut end: impl FnMut(&mut NetSocket, Now),
) -> Outcome<()> {
    for coverage in dumps_of(Needs::EVERYTHING) {
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

/// A tick that finds nothing new.
pub fn dump_and_diff(scope: &mut Scope, sensor: &mut NetSocket) -> Outcome<()> {
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

/// The same requests through a socket of the same kind, and nothing done with what
/// comes.
fn bare(socket: &Netlink, needs: Needs, buffer: &mut [u8]) -> Outcome<u64> {
    let mut bytes = 0;
    for (seq, coverage) in dumps_of(needs).into_iter().enumerate() {
        socket.send(&request::dump(coverage, seq as u32))?;
        loop {
            let length = socket
                .recv(buffer)
                .map_err(|error| format!("the bare loop: {error:?}"))?;
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
    let socket = Netlink::open_asking()?;
    let mut buffer = vec![0; DUMP_ROOM];
    let rows = fill_shuffled(&mut scope, &mut sensor)?;
    if rows != sensor.len() {
        return Err(format!("{rows} rows made {} entries", sensor.len()).into());
    }
    let mut ours =
        || Cost::of(Whose::Mine, || dump_and_diff(&mut scope, &mut sensor)).map(|(cost, ())| cost);
    let needs = Needs::EVERYTHING;
    let mut peer =
        || Cost::of(Whose::Mine, || bare(&socket, needs, &mut buffer)).map(|(cost, _)| cost);
    // A table in any order is so for two dumps: the first one finds it, the second
    // one puts it in order.
    let mut disordered = Vec::new();
    for _ in 0..2 {
        disordered.push((ours()?, peer()?));
    }
    let disordered = Pairs::from(disordered);
    let pairs = Pairs::take(100, BUDGET, ours, peer)?;
    let row = a_row(rows);
    let line = |clock, target| {
        Line::alone(
            "diff",
            format!("dump and diff, {rows}, {clock}"),
            "",
            target,
        )
    };
    Ok(vec![
        line("wall", "1.10 bare").against(pairs.spread(|cost| cost.wall), row, "bare recv loop"),
        line("CPU", "").against(pairs.spread(|cost| cost.cpu), row, "bare recv loop"),
        line("CPU, out of order", "").against(
            disordered.spread(|cost| cost.cpu),
            row,
            "bare recv loop",
        ),
    ])
}

fn a_row(rows: usize) -> Unit {
    ("ns a row", rows.max(1) as f64)
}

fn run(command: &mut Command) -> Outcome<()> {
    let status = command.stdout(Stdio::null()).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {status}").into())
    }
}

/// Reads the kernel's own tables, and does nothing with them.
fn proc_net(buffer: &mut [u8]) -> io::Result<()> {
    for name in ["tcp", "tcp6", "udp", "udp6"] {
        let mut file = match File::open(format!("/proc/thread-self/net/{name}")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // no IPv6
            other => other?,
        };
        while file.read(buffer)? > 0 {}
    }
    Ok(())
}

fn ours(format: &str) -> Command {
    let mut command = Command::new(SOCKWATCH);
    command.args(["--dump", "--format", format]);
    command
}

fn ss() -> Command {
    let mut command = Command::new("ss");
    command.arg("-tuanH");
    command
}

/// `--dump` against `ss` and /proc/net, all to nowhere.
pub fn one_shot(sockets: usize) -> Outcome<Vec<Line>> {
    let count = |output: &[u8]| output.iter().filter(|byte| **byte == b'\n').count();
    let rows = count(&ours("json").output()?.stdout);
    let children = |command: Command| {
        let mut command = command;
        move || Cost::of(Whose::Children, || run(&mut command)).map(|(cost, ())| cost)
    };
    let unit = a_row(rows);
    let mut lines = Vec::new();
    let line =
        |what, clock, target| Line::alone("dump", format!("--dump {what}, {clock}"), "", target);
    match ss().output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!("SKIPPED --dump beside ss: there is no ss");
        }
        listed => {
            let theirs = count(&listed?.stdout);
            if rows != theirs || rows < sockets {
                return Err(format!("--dump lists {rows} sockets, ss {theirs}").into());
            }
            // What the kernel alone takes, as a floor: of what one thread has to
            // wait for, while another one asks for what is bound.
            let mut needs = Needs::EVERYTHING;
            needs.tcp = needs.tcp.without(StateGroups::BOUND);
            let socket = Netlink::open_asking()?;
            let mut buffer = vec![0; DUMP_ROOM];
            let bare = || {
                Cost::of(Whose::Mine, || bare(&socket, needs, &mut buffer)).map(|(cost, _)| cost)
            };
            let pairs = Pairs::take(50, BUDGET, bare, children(ss()))?;
            lines.push(
                Line::alone("dump", "a bare recv loop, wall", "", "").against(
                    pairs.spread(|cost| cost.wall),
                    unit,
                    "ss -tuanH",
                ),
            );
            for format in ["json", "text"] {
                let pairs = Pairs::take(50, BUDGET, children(ours(format)), children(ss()))?;
                for (clock, target, spread) in [
                    ("wall", "0.40 ss", pairs.spread(|cost| cost.wall)),
                    ("CPU", "", pairs.spread(|cost| cost.cpu)),
                ] {
                    lines.push(line(format, clock, target).against(spread, unit, "ss -tuanH"));
                }
            }
        }
    }
    let mut buffer = vec![0; 64 << 10];
    let pairs = Pairs::take(50, BUDGET, children(ours("json")), || {
        Cost::of(Whose::Mine, || Ok(proc_net(&mut buffer)?)).map(|(cost, ())| cost)
    })?;
    let spread = pairs.spread(|cost| cost.wall);
    lines.push(line("json", "wall", "").against(spread, unit, "read /proc/net, unparsed"));
    Ok(lines)
}

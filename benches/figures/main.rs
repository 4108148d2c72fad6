//! The figures that are promised, each against what does the same with less:
//! `cargo bench`.
//!
//! It prints one table of values, targets and ratios, and no verdict about a
//! time: a time means something only beside its peer, taken on the same machine,
//! over the same sockets, in turn with it. A socket that was not told of, or was
//! told of twice, makes it fail. All sockets live in a network namespace of the
//! benchmark's own, on loopback, and end with it.
//!
//! ```text
//! cargo bench --bench figures -- [--sockets N] [--seconds S] [--rate R]
//!     [--variants] [--only PART]
//! ```
//!
//! `--sockets` is the size of the largest world (1,000,000; the others have a
//! tenth of it, and ten), `--seconds` how long the traffic of completeness lasts
//! (30; that of latency a third of it, the ticks of a size as long as it),
//! `--rate` how many connections a second that is (20,000). `--variants` builds the
//! static programs too, to measure them. The parts: [`PARTS`].

#![allow(unsafe_code)]

mod account;
mod completeness;
mod connect;
mod daemon;
mod dns;
mod dump;
mod flood;
mod holders;
mod latency;
mod narrow;
mod notices;
mod sample;
mod size;
mod stream;
mod table;
mod tick;
mod traffic;
mod world;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use holders::Holders;
use table::Line;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Every part, in the order in which they run; the first five depend on how many
/// sockets there are.
const PARTS: [&str; 11] = [
    "tick",
    "memory",
    "diff",
    "narrow",
    "dump",
    "notices",
    "dns",
    "latency",
    "connect",
    "completeness",
    "size",
];

/// What the command line asks for.
struct Flags {
    sockets: usize,
    seconds: u32,
    rate: usize,
    variants: bool,
    only: Option<String>,
}

impl Flags {
    fn read() -> Outcome<Flags> {
        let mut args = std::env::args().skip(1);
        // `cargo bench` says --bench; `cargo test --benches` does not, and gets a
        // run that only shows that the benchmark still works.
        let mut flags = Flags {
            sockets: 200,
            seconds: 1,
            rate: 500,
            variants: false,
            only: None,
        };
        if std::env::args().any(|arg| arg == "--bench") {
            (flags.sockets, flags.seconds, flags.rate) = (1_000_000, 30, 20_000);
        }
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--bench" => {}
                "--variants" => flags.variants = true,
                "--sockets" => flags.sockets = value()?.parse()?,
                "--seconds" => flags.seconds = value()?.parse()?,
                "--rate" => flags.rate = value()?.parse()?,
                "--only" => flags.only = Some(value()?),
                other => return Err(format!("there is no option '{other}'").into()),
            }
        }
        match &flags.only {
            Some(part) if !PARTS.contains(&part.as_str()) => {
                Err(format!("there is no part '{part}', but {}", PARTS.join(", ")).into())
            }
            _ if flags.sockets < 100 || flags.seconds == 0 || flags.rate == 0 => {
                Err("at least 100 sockets, 1 second and 1 connection a second".into())
            }
            _ => Ok(flags),
        }
    }

    fn wants(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }
}

fn main() -> ExitCode {
    let outcome = holders::asked().or_else(tick::asked).unwrap_or_else(run);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("figures: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let flags = Flags::read()?;
    let built = size::build(flags.wants("size"), flags.variants)?;
    world::enter()?;
    let cores = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!(
        "kernel {}, {cores} cores, load {} before; medians (least to most), ratio of the pairs' median",
        kernel.trim(),
        world::load()?,
    );
    let mut lines = Vec::new();
    if PARTS[..5].iter().any(|part| flags.wants(part)) {
        lines.extend(sizes(&flags)?);
    }
    if flags.wants("memory") {
        say("memory after a flood");
        lines.extend(flood::measure(flags.sockets / 10)?);
    }
    if flags.wants("notices") {
        say("notices");
        lines.extend(notices::notices()?);
    }
    if flags.wants("dns") {
        say("DNS packets");
        lines.extend(dns::measure()?);
    }
    if flags.wants("latency") {
        say("close to event");
        lines.extend(latency::measure(flags.time() / 3)?);
    }
    if flags.wants("connect") {
        say("connect() to event");
        lines.extend(connect::measure(flags.time() / 3)?);
    }
    let mut verdict = Ok(());
    if flags.wants("completeness") {
        say("completeness");
        let (more, complete) = completeness::measure(flags.rate, flags.time())?;
        lines.extend(more);
        verdict = complete;
    }
    lines.extend(built);
    Line::print(&lines);
    println!("\nload {} after", world::load()?);
    Ok(verdict?)
}

/// What depends on how many sockets there are.
fn sizes(flags: &Flags) -> Outcome<Vec<Line>> {
    let (mut lines, mut at_rest) = (Vec::new(), Vec::new());
    let mut world = Holders::default();
    for (nth, size) in [10, flags.sockets / 10, flags.sockets]
        .into_iter()
        .enumerate()
    {
        if let Err(reason) = world.grow(size)? {
            println!("SKIPPED {reason}");
            break;
        }
        let counted = world::tcp_in_use()?;
        match world.each() {
            Some(each) => say(&format!(
                "{size} sockets: sockstat counts {counted}, {each} B of the machine's memory each"
            )),
            None => say(&format!("{size} sockets: sockstat counts {counted}")),
        }
        if counted < size as u64 {
            return Err(format!("{size} sockets were made, and {counted} are counted").into());
        }
        if flags.wants("tick") || flags.wants("memory") {
            at_rest.push(tick::at_rest(flags.time() * 2 / 3)?);
        }
        if flags.wants("diff") && nth > 0 {
            lines.extend(dump::diff()?);
        }
        if flags.wants("narrow") && nth > 0 {
            lines.extend(narrow::measure()?);
        }
        if flags.wants("dump") && nth == 1 {
            lines.extend(dump::one_shot(size)?);
        }
    }
    let mut all = tick::lines(&at_rest, [flags.wants("tick"), flags.wants("memory")]);
    all.extend(lines);
    Ok(all)
}

fn say(what: &str) {
    println!("... {what}");
}

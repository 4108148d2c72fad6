//! What a dump, a notice and a tracked socket cost, each against what does the
//! same with less: `cargo bench`.
//!
//! It prints ratios and no verdicts: a figure means something only beside its
//! peer, taken on the same machine, over the same sockets, in turn with it. The
//! sockets live in a network namespace of the benchmark's own.
//!
//! ```text
//! cargo bench -- [--sockets N] [--only diff|dump|memory|notices|size]
//! ```

#![allow(unsafe_code)]

#[path = "dump/figures.rs"]
mod figures;
#[path = "dump/sample.rs"]
mod sample;
#[path = "dump/world.rs"]
mod world;

use std::error::Error;
use std::process::ExitCode;

use figures::Line;
use world::{Daemon, Holders};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What the command line asks for.
struct Flags {
    sockets: usize,
    only: Option<String>,
}

impl Flags {
    fn read() -> Outcome<Flags> {
        let mut args = std::env::args().skip(1);
        // `cargo bench` says --bench; `cargo test --benches` does not, and gets a
        // run that only shows that the benchmark still works.
        let mut flags = Flags {
            sockets: 200,
            only: None,
        };
        let mut sockets = std::env::var("SOCKWATCH_BENCH_SOCKETS").ok();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => flags.sockets = 20_000,
                "--sockets" => sockets = args.next(),
                "--only" => flags.only = args.next(),
                other => return Err(format!("there is no option '{other}'").into()),
            }
        }
        if let Some(sockets) = sockets {
            flags.sockets = sockets.parse()?;
        }
        Ok(flags)
    }

    fn wants(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }
}

fn main() -> ExitCode {
    let outcome = match world::asked_to_hold() {
        Some(connections) => world::hold(connections),
        None => run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dump: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let flags = Flags::read()?;
    world::build()?;
    world::enter()?;
    let cores = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!(
        "{} sockets, kernel {}, {cores} cores; medians (least to most), ratio of the pairs' median\n",
        flags.sockets,
        kernel.trim()
    );
    let mut lines = Vec::new();
    let idle = if flags.wants("memory") {
        Some(Daemon::settled()?)
    } else {
        None
    };
    let holders = Holders::of(flags.sockets)?;
    if let Some(idle) = idle {
        let full = Daemon::settled()?;
        lines.extend(figures::memory(idle, full, flags.sockets));
    }
    if flags.wants("diff") {
        lines.extend(figures::diff()?);
    }
    if flags.wants("dump") {
        lines.extend(figures::one_shot(flags.sockets)?);
    }
    drop(holders);
    if flags.wants("notices") {
        lines.extend(figures::notices()?);
    }
    if flags.wants("size") {
        lines.push(figures::size()?);
    }
    Line::print(&lines);
    Ok(())
}

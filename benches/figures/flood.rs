//! What a daemon has in memory after its table has grown, and after all of that
//! has gone again.

use std::process::Stdio;
use std::time::Duration;

use super::Outcome;
use super::daemon::Daemon;
use super::holders::Holders;
use super::table::{Line, mib};
use super::world;

/// What a socket may take, in bytes.
const EACH: u64 = 128;
/// What may be left when all have gone.
const LEFT: u64 = 1 << 20;
/// How long the daemon has to come to that: its own share of time is in it, to
/// find out who has the sockets and to let memory rest before it is given back.
const PATIENCE: Duration = Duration::from_secs(15);
/// So few that what they take is not seen beside everything else.
const FEW: usize = 10_000;

/// Has this many sockets opened and closed beside a daemon of the defaults.
pub fn measure(sockets: usize) -> Outcome<Vec<Line>> {
    let patience = if sockets < FEW {
        Duration::ZERO
    } else {
        PATIENCE
    };
    let daemon = Daemon::start("", Stdio::null())?;
    daemon.settle(Duration::from_secs(1))?;
    let (idle, before) = (daemon.resident()?, world::tcp_in_use()?);
    let mut holders = Holders::default();
    if let Err(reason) = holders.grow(sockets)? {
        println!("SKIPPED {reason}");
        return Ok(Vec::new());
    }
    let opened = world::tcp_in_use()? - before;
    daemon.settle(Duration::from_secs(1))?;
    let grown = daemon.resident_by(idle + opened * EACH, patience)?;
    drop(holders);
    daemon.settle(Duration::from_secs(1))?;
    let after = daemon.resident_by(idle + LEFT, patience)?;
    daemon.stop()?;
    let each = grown.saturating_sub(idle) / opened.max(1);
    Ok(vec![
        Line::alone(
            "memory",
            format!("RSS a socket, {opened} more"),
            format!("{each} B ({} in all)", mib(grown)),
            "128 B",
        ),
        Line::alone(
            "memory",
            "RSS when these are gone",
            format!("{} ({} before)", mib(after), mib(idle)),
            "1 MiB more",
        ),
    ])
}

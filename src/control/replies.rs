//! What is written to clients.

use std::time::Duration;

use super::Status;
use crate::emit::Object;
use crate::lock::Lock;
use crate::model::Degraded;
use crate::stats::Stats;

/// How many problems one reply tells.
const PROBLEMS: usize = 100;

/// A reply that is `ok`, with what `more` adds.
pub(super) fn ok(out: &mut Vec<u8>, request: &'static str, more: impl FnOnce(&mut Object<'_>)) {
    let mut line = Object::open(out);
    line.truth("ok", true);
    line.word("request", request);
    more(&mut line);
    line.close();
    out.push(b'\n');
}

/// A reply that is not.
pub(super) fn failed(
    out: &mut Vec<u8>,
    request: Option<&'static str>,
    error: &str,
    more: impl FnOnce(&mut Object<'_>),
) {
    let mut line = Object::open(out);
    line.truth("ok", false);
    line.maybe_word("request", request);
    line.text("error", error);
    more(&mut line);
    line.close();
    out.push(b'\n');
}

/// Who answers.
pub(super) fn introduce(line: &mut Object<'_>, uptime: Duration) {
    line.word("version", env!("CARGO_PKG_VERSION"));
    line.number("pid", std::process::id());
    line.number(
        "uptime_ms",
        u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
    );
}

/// What is missing now, and what that costs.
pub(super) fn missing(line: &mut Object<'_>, missing: &[Degraded]) {
    line.objects("missing", missing, |one, object| {
        object.word("source", one.source);
        object.words("missing", &one.missing);
        object.text("reason", &one.reason);
        object.text("cost", &one.cost);
    });
}

/// Everything that is counted.
pub(super) fn count(
    line: &mut Object<'_>,
    status: Status,
    locks: usize,
    (clients, subscribers): (usize, usize),
    asked: &[String],
    stats: &Stats,
) {
    line.number("seq", status.seq);
    line.number("sockets", status.sockets as u64);
    line.number("locks", locks as u64);
    line.number("clients", clients as u64);
    line.number("subscribers", subscribers as u64);
    line.texts("asked", asked);
    let mut counters = line.object("counters");
    for (name, count) in stats.all() {
        match count {
            Ok(count) => counters.number(name, count),
            Err(reason) => counters.unknown(name, reason),
        }
    }
    counters.close();
}

/// A lock that is held, or was.
pub(super) fn lock(out: &mut Vec<u8>, eid: &str, lock: &Lock) {
    let mut line = Object::open(out);
    line.text("eid", eid);
    line.time("first", lock.first);
    line.time("last", lock.last);
    line.number("muted", lock.muted);
    line.close();
    out.push(b'\n');
}

/// A configuration that was not taken.
pub(super) fn not_reloaded(out: &mut Vec<u8>, problems: &[String]) {
    let error = match problems {
        [one] => format!("nothing was changed: {one}"),
        many => format!("nothing was changed: there are {} mistakes", many.len()),
    };
    failed(out, Some("reload"), &error, |line| {
        line.texts("problems", &problems[..problems.len().min(PROBLEMS)]);
    });
}

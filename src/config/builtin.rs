//! The configuration without a file.

use std::sync::Arc;

use crate::filter::{Globs, Subject};
use crate::model::Listener;

use super::globs::{self, Unwatched};
use super::problem::Problem;
use super::schema;
use super::{DNS_TIMEOUT, DNS_TTL, Daemon, INTERVAL, PROCESS_TIMEOUT, Sensor, Settings};

/// What the globs of the command line are.
const GLOB: schema::Item = schema::Item::Glob(Subject::Sockets);

/// The configuration that runs when no file is named: one sensor `sockets` that
/// watches every TCP and UDP socket, narrowed by the globs of the command line.
///
/// The warnings are those of a sensor without `dns` in a daemon. A dump has no use
/// for them: it can look names up, and minisockets are rows like any other.
///
/// # Errors
/// Every glob that cannot be compiled.
pub fn builtin(patterns: &[String], ignore: &[String]) -> Result<Settings, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    let compiled = Globs::new();
    let mut wanted = Vec::new();
    for (flag, texts) in [("--pattern", patterns), ("--ignore", ignore)] {
        for glob in texts {
            let told = |found: String, expected: &str| Problem::new(found, expected).within(flag);
            if glob.is_empty() {
                let expected = GLOB.expected();
                problems.push(told("an empty text".to_owned(), &expected));
                continue;
            }
            match compiled.compile(glob, Subject::Sockets) {
                Err(error) => {
                    let expected = GLOB.expected();
                    problems.push(told(globs::bad(glob, &error), &expected));
                }
                Ok(matcher) => {
                    if let Some(found) = globs::host_without_dns(glob, &matcher) {
                        warnings.push(told(found, "names to be looked up, or `*` for the host"));
                    }
                    if flag == "--pattern" {
                        wanted.push(((), glob.as_str(), matcher));
                    }
                }
            }
        }
    }
    // A glob that fails is told above.
    let Ok(filter) = compiled.filter(patterns, ignore, Subject::Sockets) else {
        return Err(problems);
    };
    for (_, told) in globs::unwatched(&wanted) {
        let (Unwatched::Whole(problem) | Unwatched::Part(problem)) = told;
        warnings.push(problem.within("--pattern"));
    }
    let sensor = Sensor {
        id: Arc::from("sockets"),
        listener: Listener::NetSocket,
        description: None,
        opened: true,
        closed: true,
        interval: INTERVAL,
        tag: None,
        patterns: patterns.to_vec(),
        ignore: ignore.to_vec(),
        filter,
        dns: false,
        dns_ttl: DNS_TTL,
        dns_timeout: DNS_TIMEOUT,
        skip_reverse_dns: false,
        process: true,
        process_timeout: PROCESS_TIMEOUT,
        cmdline: false,
        locked: false,
        initial: false,
        everywhere: false,
        hook: None,
    };
    Ok(Settings {
        sensors: vec![sensor],
        handlers: Vec::new(),
        daemon: Daemon::default(),
        warnings,
    })
}

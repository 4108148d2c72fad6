//! The command line: flags to a mode, and what became of it to an exit code.
//!
//! 0: done, or stopped by a signal. 1: a failure at run time. 2: bad flags or
//! configuration; then nothing has started.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::{Arg, ValueExt};

use crate::config;
use crate::ctl::{self, CtlFailed};
use crate::daemon::{self, RunError};
use crate::dump;
use crate::emit::Format;
use crate::log::Plain;
use crate::model::Listener;
use crate::sys::output::{Output, Patient};

const HELP: &str = "\
sockwatch: the socket table of this machine as exact events

usage:
  sockwatch [--config FILE]... [--profile NAME]... [--format auto|text|json]
  sockwatch [--pattern GLOB]... [--ignore GLOB]... [--format ...]
  sockwatch --dump [--pattern GLOB]... [--ignore GLOB]... [--dns] [--process]
                   [--netns host|all] [--format ...]
  sockwatch --check --config FILE...
  sockwatch ctl COMMAND    asks a running daemon; see sockwatch ctl --help

Without --config it watches every TCP and UDP socket of its network namespace.
Events and dumps go to standard output (lines for people on a terminal, JSON
lines otherwise), everything else to standard error.

options:
  -c, --config FILE    settings; several files are merged
  -p, --profile NAME   run the sensors of these profiles, and those without one
                       (without this flag: of the profile 'default')
      --pattern GLOB   only sockets whose tuple matches: proto local remote
                       remote-host state, as in 'tcp * *:443 * ESTABLISHED'
      --ignore GLOB    leave out sockets whose tuple matches
      --dump           print the socket table once
      --dns            look up names of remote addresses (with --dump)
      --process        say which processes have each socket open (with --dump)
      --netns WHICH    host, or all: the sockets of every network namespace
                       (with --dump)
      --format FORMAT  auto, text or json
      --check          read the configuration, report every mistake, and end
  -h, --help           this text
  -V, --version        the version

exit codes: 0 done, 1 failed while running, 2 bad flags or configuration
environment: SOCKWATCH_LOG=error|warn|info|debug says how much is logged
";

/// Bad flags: a sentence.
#[derive(Debug, PartialEq, Eq)]
struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Plain(&self.0))
    }
}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> UsageError {
        UsageError(match &error {
            lexopt::Error::UnexpectedOption(option) => match nearest_flag(option) {
                Some(near) => format!("there is no option '{option}'; did you mean '{near}'?"),
                None => format!("there is no option '{option}'"),
            },
            _ => error.to_string(),
        })
    }
}

const FLAGS: [&str; 12] = [
    "--config",
    "--profile",
    "--pattern",
    "--ignore",
    "--dump",
    "--dns",
    "--process",
    "--netns",
    "--format",
    "--check",
    "--help",
    "--version",
];

fn nearest_flag(option: &str) -> Option<&'static str> {
    FLAGS
        .iter()
        .map(|flag| (strsim::damerau_levenshtein(option, flag), *flag))
        .min()
        .filter(|(distance, _)| *distance <= 3)
        .map(|(_, flag)| flag)
}

/// What the flags ask for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Flags {
    configs: Vec<PathBuf>,
    profiles: Vec<String>,
    patterns: Vec<String>,
    ignore: Vec<String>,
    format: Option<Format>,
    mode: Mode,
    dns: bool,
    process: bool,
    /// `Some(true)` for every network namespace.
    everywhere: Option<bool>,
}

#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
enum Mode {
    #[default]
    Daemon,
    Dump,
    Check,
    Help,
    Version,
}

/// Runs the program on this process's arguments.
pub fn main() -> ExitCode {
    if let Err(error) = crate::log::init() {
        complain(&error);
        return ExitCode::from(2);
    }
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|first| first == "ctl").is_some() {
        return ask(args);
    }
    let flags = match parse(args) {
        Ok(flags) => flags,
        Err(error) => {
            complain(&format_args!("{error}\nTry 'sockwatch --help'."));
            return ExitCode::from(2);
        }
    };
    match flags.mode {
        Mode::Help => print(HELP),
        Mode::Version => print(concat!("sockwatch ", env!("CARGO_PKG_VERSION"), "\n")),
        Mode::Check => check(&flags),
        Mode::Dump => run_dump(&flags),
        Mode::Daemon => run_daemon(&flags),
    }
}

fn parse(args: impl Iterator<Item = OsString>) -> Result<Flags, UsageError> {
    let mut flags = Flags::default();
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Short('c') | Arg::Long("config") => flags.configs.push(parser.value()?.into()),
            Arg::Short('p') | Arg::Long("profile") => {
                flags.profiles.push(parser.value()?.string()?)
            }
            Arg::Long("pattern") => flags.patterns.push(parser.value()?.string()?),
            Arg::Long("ignore") => flags.ignore.push(parser.value()?.string()?),
            Arg::Long("format") => {
                let word = parser.value()?.string()?;
                flags.format = Format::named(&word).map_err(UsageError)?;
            }
            Arg::Long("dns") => flags.dns = true,
            Arg::Long("process") => flags.process = true,
            Arg::Long("netns") => {
                let word = parser.value()?.string()?;
                flags.everywhere = Some(match &word[..] {
                    "host" => false,
                    "all" => true,
                    _ => {
                        return Err(UsageError(format!(
                            "--netns is `host` or `all`, not '{word}'"
                        )));
                    }
                });
            }
            Arg::Long("dump") => flags.set_mode(Mode::Dump)?,
            Arg::Long("check") => flags.set_mode(Mode::Check)?,
            Arg::Short('h') | Arg::Long("help") => {
                return Ok(Flags {
                    mode: Mode::Help,
                    ..flags
                });
            }
            Arg::Short('V') | Arg::Long("version") => {
                return Ok(Flags {
                    mode: Mode::Version,
                    ..flags
                });
            }
            Arg::Value(value) => {
                return Err(UsageError(format!(
                    "unexpected argument '{}'",
                    value.to_string_lossy()
                )));
            }
            other => return Err(other.unexpected().into()),
        }
    }
    flags.agree()?;
    Ok(flags)
}

impl Flags {
    fn set_mode(&mut self, mode: Mode) -> Result<(), UsageError> {
        if self.mode != Mode::Daemon && self.mode != mode {
            return Err(UsageError("--dump and --check exclude each other".into()));
        }
        self.mode = mode;
        Ok(())
    }

    fn agree(&self) -> Result<(), UsageError> {
        let narrowed = !self.patterns.is_empty() || !self.ignore.is_empty();
        let error = match self.mode {
            Mode::Daemon if narrowed && !self.configs.is_empty() => {
                "--pattern and --ignore narrow the built-in configuration; with --config, write them there"
            }
            Mode::Daemon if self.dns => {
                "--dns belongs to --dump; a sensor has 'dns: true' in its args"
            }
            Mode::Daemon if self.process => {
                "--process belongs to --dump; a sensor has 'process' in its args"
            }
            Mode::Daemon if self.everywhere.is_some() => {
                "--netns belongs to --dump; a sensor has 'netns' in its args"
            }
            Mode::Check if self.configs.is_empty() => "--check needs a --config FILE to check",
            Mode::Check
                if narrowed
                    || self.dns
                    || self.process
                    || self.everywhere.is_some()
                    || self.format.is_some() =>
            {
                "--check takes only --config and --profile"
            }
            _ if self.configs.is_empty() && !self.profiles.is_empty() => {
                "--profile chooses among the sensors of a --config FILE"
            }
            _ => return Ok(()),
        };
        Err(UsageError(error.into()))
    }

    fn format(&self) -> Format {
        self.format.unwrap_or_else(Format::auto)
    }

    /// The settings of the files, or the built-in ones; every mistake is told.
    fn settings(&self) -> Result<config::Settings, ExitCode> {
        let loaded = if self.configs.is_empty() {
            config::builtin(&self.patterns, &self.ignore)
        } else {
            config::load(&self.configs, &self.profiles)
        };
        match loaded {
            Ok(settings) => {
                warn(&settings);
                Ok(settings)
            }
            Err(problems) => Err(refuse(&problems)),
        }
    }
}

/// `sockwatch ctl`.
fn ask(args: impl Iterator<Item = OsString>) -> ExitCode {
    let call = match ctl::parse(args) {
        Ok(Some(call)) => call,
        Ok(None) => return print(ctl::HELP),
        Err(error) => {
            let error = UsageError(error);
            complain(&format_args!("{error}\nTry 'sockwatch ctl --help'."));
            return ExitCode::from(2);
        }
    };
    match ctl::run(&call) {
        Ok(()) | Err(CtlFailed::ReaderGone) => ExitCode::SUCCESS,
        Err(error) => {
            let code = fail(&error);
            if let CtlFailed::Refused { problems, .. } = &error {
                for problem in problems {
                    complain(&Plain(problem));
                }
            }
            code
        }
    }
}

fn check(flags: &Flags) -> ExitCode {
    match flags.settings() {
        Ok(settings) => {
            let sensors = settings.sensors.len();
            let mut text = format!(
                "good: {sensors} sensor{} would run\n",
                if sensors == 1 { "" } else { "s" }
            );
            for asked in daemon::would_ask(&settings) {
                text += &format!("asked of the kernel: {asked}\n");
            }
            print(&text)
        }
        Err(code) => code,
    }
}

fn run_daemon(flags: &Flags) -> ExitCode {
    let settings = match flags.settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let origin = if flags.configs.is_empty() {
        config::Provenance::BuiltIn
    } else {
        config::Provenance::Files(flags.configs.clone(), flags.profiles.clone())
    };
    match daemon::run(settings, flags.format(), origin) {
        Ok(()) | Err(RunError::ReaderGone) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn run_dump(flags: &Flags) -> ExitCode {
    // With --config, the sensors' patterns choose the rows; --pattern and
    // --ignore narrow them further.
    let mut sources = vec![config::builtin(&flags.patterns, &flags.ignore)];
    if !flags.configs.is_empty() {
        sources.push(config::load(&flags.configs, &flags.profiles));
    }
    let mut filters = Vec::new();
    for loaded in sources {
        match loaded {
            Ok(settings) => {
                // The warnings are about what does not happen without names.
                if !flags.dns {
                    warn(&settings);
                }
                let sockets = |one: &config::Sensor| one.listener == Listener::NetSocket;
                let sensors = settings.sensors.into_iter().filter(sockets);
                let set: Vec<_> = sensors.map(|one| one.filter).collect();
                if set.is_empty() {
                    complain(
                        &"--dump prints sockets, and the configuration has no net.socket sensor to choose them",
                    );
                    return ExitCode::from(2);
                }
                filters.push(set);
            }
            Err(problems) => return refuse(&problems),
        }
    }
    let request = dump::Request {
        filters,
        dns: flags.dns,
        process: flags.process,
        everywhere: flags.everywhere == Some(true),
        format: flags.format(),
    };
    match dump::run(&request) {
        Ok(()) | Err(dump::DumpFailed::ReaderGone) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn warn(settings: &config::Settings) {
    for warning in &settings.warnings {
        ::log::warn!("{warning}");
    }
}

fn refuse(problems: &[config::Problem]) -> ExitCode {
    for problem in problems {
        complain(problem);
    }
    ExitCode::from(2)
}

/// Tells a failure at run time through the log, which never waits for a standard
/// error that nobody reads.
fn fail(error: &dyn fmt::Display) -> ExitCode {
    ::log::error!("{error}");
    ::log::logger().flush();
    ExitCode::from(1)
}

/// Writes to standard error, before anything has started. When that is closed
/// there is nobody left to tell; the exit code says it.
fn complain(what: &dyn fmt::Display) {
    if writeln!(io::stderr(), "sockwatch: {what}").is_err() {
        ::log::debug!("standard error is closed");
    }
}

fn print(text: &str) -> ExitCode {
    let mut out = match Output::standard() {
        Ok(output) => Patient(output),
        Err(error) => return fail(&format_args!("standard output {error}")),
    };
    match out.write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(&format_args!("writing to standard output failed: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(words: &[&str]) -> Result<Flags, String> {
        parse(words.iter().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn modes_and_values() {
        let dump = flags(&[
            "--dump",
            "--pattern=tcp *",
            "--ignore",
            "udp *",
            "--dns",
            "--process",
            "--format=json",
        ]);
        let dump = dump.unwrap();
        assert_eq!(dump.mode, Mode::Dump);
        assert_eq!(
            (dump.patterns, dump.ignore),
            (vec!["tcp *".into()], vec!["udp *".into()])
        );
        assert!(dump.dns && dump.process);
        assert_eq!(dump.format, Some(Format::Json));
        assert_eq!(flags(&[]).unwrap(), Flags::default());
        assert_eq!(flags(&["-V"]).unwrap().mode, Mode::Version);
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        for (words, expected) in [
            (
                &["--config", "a", "--pattern", "b"][..],
                "narrow the built-in",
            ),
            (&["--check"], "needs a --config"),
            (&["--dump", "--check"], "exclude each other"),
            (&["--dns"], "belongs to --dump"),
            (&["--process"], "belongs to --dump"),
            (&["--netns", "all"], "belongs to --dump"),
            (&["--dump", "--netns", "some"], "`host` or `all`"),
            (&["--profile", "x"], "--config FILE"),
            (&["--patern", "x"], "did you mean '--pattern'"),
            (&["--format", "xml"], "is no format"),
            (&["extra\x1b[2J"], "unexpected argument 'extra\\"),
            (&["--config"], "missing argument"),
        ] {
            let error = flags(words).unwrap_err();
            assert!(error.contains(expected), "{words:?}: {error}");
            assert!(!error.contains('\x1b'));
        }
        assert!(flags(&["--dump", "--config", "a", "--pattern", "b"]).is_ok());
    }
}

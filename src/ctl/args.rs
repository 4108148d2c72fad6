//! The arguments of `sockwatch ctl`.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, ValueExt};

use super::Command;
use crate::config::nearest;
use crate::emit::Format;
use crate::filter::IdGlob;

/// Where the socket is when nobody says otherwise.
const SOCKET: &str = "/run/sockwatch/control.sock";

/// What `sockwatch ctl --help` says.
pub const HELP: &str = "\
sockwatch ctl: asks a running daemon

usage: sockwatch ctl [--socket PATH] [--format auto|text|json] COMMAND

commands:
  ping                 whether it is there, and since when
  stats                its counters
  locks                the event ids that are muted, and what they have muted
  unlock EID...        release these: ids, or globs over ids
  subscribe [GLOB]     its events from now on, those whose id matches
  dump                 the sockets that its sensors have in view
  reload               read its configuration again

options:
      --socket PATH    the daemon's `control` (/run/sockwatch/control.sock)
      --format FORMAT  auto, text or json: auto is text on a terminal, else json
  -h, --help           this text

exit codes: 0 done, 1 the request failed or nobody answers, 2 bad usage
";

const COMMANDS: [&str; 7] = [
    "ping",
    "stats",
    "locks",
    "unlock",
    "subscribe",
    "dump",
    "reload",
];

/// What is to be asked, where, and how the answer is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// The socket.
    pub socket: PathBuf,
    /// What to ask.
    pub command: Command,
    /// How to show the answer.
    pub format: Format,
}

/// Reads the arguments after `ctl`; none when only help is wanted.
///
/// # Errors
/// What is wrong, as a sentence.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Option<Call>, String> {
    let (mut socket, mut chosen, mut words) = (PathBuf::from(SOCKET), None, Vec::new());
    let mut parser = lexopt::Parser::from_args(args);
    let plainly = |error: lexopt::Error| error.to_string();
    while let Some(arg) = parser.next().map_err(plainly)? {
        match arg {
            Arg::Long("socket") => socket = parser.value().map_err(plainly)?.into(),
            Arg::Long("format") => {
                let word = parser.value().and_then(|word| word.string());
                chosen = Format::named(&word.map_err(plainly)?)?;
            }
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Value(word) => words.push(word.string().map_err(plainly)?),
            Arg::Long(option) => {
                let near = nearest(option, ["socket", "format", "help"].into_iter());
                return Err(match near {
                    Some(near) => {
                        format!("there is no option '--{option}'; did you mean '--{near}'?")
                    }
                    None => format!("there is no option '--{option}' for ctl"),
                });
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    let command = command(words)?;
    let format = chosen.unwrap_or_else(Format::auto);
    Ok(Some(Call {
        socket,
        command,
        format,
    }))
}

fn command(words: Vec<String>) -> Result<Command, String> {
    let mut words = words.into_iter();
    let name = words
        .next()
        .ok_or_else(|| format!("ctl needs a command: {}", COMMANDS.join(", ")))?;
    let command = match name.as_str() {
        "ping" => Command::Ping,
        "stats" => Command::Stats,
        "locks" => Command::Locks,
        "unlock" => {
            let eids: Vec<String> = words.by_ref().collect();
            if eids.is_empty() || eids.iter().any(String::is_empty) {
                return Err(
                    "unlock needs the event ids to release, or globs over them ('*' is all)".into(),
                );
            }
            Command::Unlock(eids)
        }
        "subscribe" => {
            let glob = words.next();
            if let Some(glob) = &glob {
                IdGlob::new(glob).map_err(|error| format!("'{glob}' is no glob: {error}"))?;
            }
            Command::Subscribe(glob)
        }
        "dump" => Command::Dump,
        "reload" => Command::Reload,
        other => {
            return Err(match nearest(other, COMMANDS.into_iter()) {
                Some(near) => format!("ctl has no command '{other}'; did you mean '{near}'?"),
                None => format!(
                    "ctl has no command '{other}'; it has {}",
                    COMMANDS.join(", ")
                ),
            });
        }
    };
    match words.next() {
        None => Ok(command),
        Some(extra) => Err(format!("unexpected argument '{extra}' after {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(words: &[&str]) -> Result<Option<Call>, String> {
        parse(words.iter().map(OsString::from))
    }

    #[test]
    fn commands_and_options() {
        let call = call(&["--socket", "/x", "unlock", "a", "b*", "--format=text"]);
        let call = call.unwrap().unwrap();
        assert_eq!(call.socket, PathBuf::from("/x"));
        assert_eq!(call.command, Command::Unlock(vec!["a".into(), "b*".into()]));
        assert_eq!(call.format, Format::Text);
        let plain = super::parse(["ping".into()].into_iter()).unwrap().unwrap();
        assert_eq!(plain.socket, PathBuf::from(SOCKET));
        assert_eq!(super::parse(["-h".into()].into_iter()), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (words, expected) in [
            (&[][..], "needs a command"),
            (&["pnig"], "did you mean 'ping'?"),
            (&["ping", "x"], "unexpected argument 'x'"),
            (&["unlock"], "event ids"),
            (&["unlock", ""], "event ids"),
            (&["subscribe", "{a"], "is no glob"),
            (&["subscribe", "a", "b"], "unexpected argument 'b'"),
            (&["--sockt", "x", "ping"], "did you mean '--socket'?"),
            (&["--format", "xml", "ping"], "is no format"),
        ] {
            let error = call(words).unwrap_err();
            assert!(error.contains(expected), "{words:?}: {error}");
        }
    }
}

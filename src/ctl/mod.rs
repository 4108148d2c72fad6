//! `sockwatch ctl`: asks a running daemon, over its control socket.
//!
//! On a terminal it shows tables and lines; otherwise JSON lines, as they came
//! from the daemon: the events of `subscribe`, the rows of `dump`, the locks of
//! `locks` and `unlock`, and of the other requests the reply itself. So what goes
//! into `jq` is what was asked for and nothing else; that a request failed is
//! told on standard error and by the exit code.

mod args;
mod failed;
mod show;

pub use args::{Call, HELP, parse};
pub use failed::CtlFailed;

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::control::LONGEST;
use crate::emit::Format;
use crate::log::is_harmful;
use crate::sys::output::{Output, Patient};
use show::Shown;

/// How long a daemon may take over a line that it owes.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest line that a daemon writes is far shorter.
const LONGEST_LINE: u64 = 1 << 20;
/// How much is written in one go.
const WRITE_AT: usize = 64 * 1024;

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Whether it is there.
    Ping,
    /// Its counters.
    Stats,
    /// Its locks.
    Locks,
    /// To release these ids or globs.
    Unlock(Vec<String>),
    /// Its events, those whose id matches the glob.
    Subscribe(Option<String>),
    /// The sockets in view.
    Dump,
    /// To read its configuration again.
    Reload,
}

fn unwritten(error: io::Error) -> CtlFailed {
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => CtlFailed::ReaderGone,
        _ => CtlFailed::Output(error),
    }
}

/// Asks, and prints the answer.
///
/// # Errors
/// See [`CtlFailed`]; [`CtlFailed::ReaderGone`] is no failure.
pub fn run(call: &Call) -> Result<(), CtlFailed> {
    let mut out = Patient(Output::standard().map_err(CtlFailed::Open)?);
    let socket = std::path::absolute(&call.socket).unwrap_or_else(|_| call.socket.clone());
    let mut daemon = Connection::open(&socket)?;
    let mut shown = Shown::new(&call.command);
    let mut failed = None;
    for request in requests(&call.command, call.format) {
        daemon.ask(&request);
        match daemon.answer(call, &mut shown, &mut out) {
            // Of several the others may succeed.
            Err(error @ CtlFailed::Refused { .. }) => failed = Some(error),
            other => other?,
        }
    }
    if call.format == Format::Text {
        let text = shown.finish();
        out.write_all(text.as_bytes()).map_err(unwritten)?;
    }
    failed.map_or(Ok(()), Err)
}

/// The lines of a request; many ids take several.
fn requests(command: &Command, format: Format) -> Vec<String> {
    let name = command.name();
    match command {
        Command::Unlock(eids) => {
            let mut requests = Vec::new();
            let mut rest = eids.as_slice();
            while !rest.is_empty() {
                let mut length = 64;
                let fits = rest.iter().take_while(|eid| {
                    // Six bytes is the longest escape of one.
                    length += 6 * eid.len() + 3;
                    length < LONGEST
                });
                let (now, later) = rest.split_at(fits.count().max(1));
                requests.push(json!({"request": name, "eid": now}).to_string());
                rest = later;
            }
            requests
        }
        Command::Subscribe(glob) => {
            let format = match format {
                Format::Json => "json",
                Format::Text => "text",
            };
            let mut request = json!({"request": name, "format": format});
            if let Some(glob) = glob {
                request["glob"] = glob.as_str().into();
            }
            vec![request.to_string()]
        }
        _ => vec![json!({ "request": name }).to_string()],
    }
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Command::Ping => "ping",
            Command::Stats => "stats",
            Command::Locks => "locks",
            Command::Unlock(_) => "unlock",
            Command::Subscribe(_) => "subscribe",
            Command::Dump => "dump",
            Command::Reload => "reload",
        }
    }

    /// Whether the reply itself is what was asked for.
    fn is_about_the_reply(&self) -> bool {
        matches!(self, Command::Ping | Command::Stats | Command::Reload)
    }
}

/// A connection to a daemon.
struct Connection {
    lines: BufReader<UnixStream>,
    line: Vec<u8>,
    /// Lines come when they come, for ever.
    endless: bool,
}

impl Connection {
    fn open(path: &Path) -> Result<Connection, CtlFailed> {
        let refused = |error| CtlFailed::Connect(path.to_owned(), error);
        let stream = UnixStream::connect(path).map_err(|error| {
            // connect(2) refuses both.
            let other = path.metadata().is_ok_and(|it| !it.file_type().is_socket());
            if other && error.kind() == ErrorKind::ConnectionRefused {
                CtlFailed::NoSocket(path.to_owned())
            } else {
                refused(error)
            }
        })?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(refused)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(refused)?;
        Ok(Connection {
            lines: BufReader::with_capacity(WRITE_AT, stream),
            line: Vec::new(),
            endless: false,
        })
    }

    fn ask(&mut self, request: &str) {
        // A daemon that hangs up says why before, and that is still to be read.
        if let Err(error) = self
            .lines
            .get_ref()
            .write_all(format!("{request}\n").as_bytes())
        {
            log::debug!("the request was not taken: {error}");
        }
    }

    /// Reads a line; its end is not kept.
    fn next(&mut self) -> Result<(), CtlFailed> {
        self.line.clear();
        let read = (&mut self.lines)
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut self.line);
        match read {
            Ok(_) if self.line.pop() == Some(b'\n') => match is_harmless(&self.line) {
                true => Ok(()),
                false => Err(CtlFailed::Garbled),
            },
            Ok(read) if read as u64 == LONGEST_LINE => Err(CtlFailed::Garbled),
            Ok(_) => Err(CtlFailed::Gone),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(CtlFailed::Silent)
            }
            Err(error) => {
                log::debug!("the connection broke: {error}");
                Err(CtlFailed::Gone)
            }
        }
    }

    /// Prints what comes, up to the reply; after that of `subscribe`, for ever.
    fn answer(
        &mut self,
        call: &Call,
        shown: &mut Shown,
        out: &mut Patient,
    ) -> Result<(), CtlFailed> {
        let mut cookies = HashSet::new();
        let mut text = Vec::new();
        loop {
            if self.endless && self.lines.buffer().is_empty() {
                let daemon = self.lines.get_ref().as_fd();
                if !out.0.outlasts(daemon).map_err(CtlFailed::Output)? {
                    return Err(CtlFailed::ReaderGone);
                }
            }
            self.next()?;
            if let Some(reply) = reply(&self.line)? {
                // What was done before it failed is shown all the same.
                out.write_all(&text).map_err(unwritten)?;
                text.clear();
                refused(&reply)?;
                if matches!(call.command, Command::Subscribe(_)) {
                    self.wait_for_ever();
                    continue;
                }
                match call.format {
                    Format::Text => shown.reply(&reply),
                    Format::Json if call.command.is_about_the_reply() => {
                        text.extend_from_slice(&self.line);
                        text.push(b'\n');
                    }
                    Format::Json => {}
                }
                return out.write_all(&text).map_err(unwritten);
            }
            // A socket that moved in the table while it was listed comes twice.
            if call.command == Command::Dump && !cookies.insert(cookie(&self.line)?) {
                continue;
            }
            match call.format {
                Format::Json => {
                    text.extend_from_slice(&self.line);
                    text.push(b'\n');
                }
                Format::Text => shown.item(&parsed(&self.line)?, &mut text),
            }
            // What has come in one piece goes out in one; nothing waits for more.
            if text.len() >= WRITE_AT || !self.lines.buffer().contains(&b'\n') {
                out.write_all(&text).map_err(unwritten)?;
                text.clear();
            }
        }
    }

    /// Events come when they come.
    fn wait_for_ever(&mut self) {
        self.endless = true;
        if let Err(error) = self.lines.get_ref().set_read_timeout(None) {
            log::warn!("a silence of {PATIENCE:?} will end this: {error}");
        }
    }
}

/// Whether a line can be shown as it is. A daemon escapes what could do harm to a
/// terminal; who else may answer there does not.
fn is_harmless(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' '..=b'~'))
        || str::from_utf8(line).is_ok_and(|line| !line.contains(is_harmful))
}

/// A line that is a reply.
fn reply(line: &[u8]) -> Result<Option<Value>, CtlFailed> {
    // It is the first key of a reply, and of nothing else.
    if line.starts_with(br#"{"ok":"#) {
        parsed(line).map(Some)
    } else {
        Ok(None)
    }
}

/// An error when a reply is not `ok`.
fn refused(reply: &Value) -> Result<(), CtlFailed> {
    if reply["ok"] == true {
        return Ok(());
    }
    let texts = |key: &str| -> Vec<String> {
        let list = reply[key].as_array().map(Vec::as_slice).unwrap_or_default();
        let texts = list.iter().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    };
    let mut problems = [texts("problems"), texts("unknown")].concat();
    if problems.len() == 1 {
        // It is in the sentence.
        problems.clear();
    }
    Err(CtlFailed::Refused {
        error: reply["error"].as_str().unwrap_or("it failed").to_owned(),
        problems,
    })
}

fn parsed(line: &[u8]) -> Result<Value, CtlFailed> {
    serde_json::from_slice(line).map_err(|error| {
        log::debug!("{error}");
        CtlFailed::Garbled
    })
}

/// The cookie of a row.
fn cookie(line: &[u8]) -> Result<u64, CtlFailed> {
    #[derive(serde::Deserialize)]
    struct Row {
        cookie: u64,
    }
    let row: Result<Row, _> = serde_json::from_slice(line);
    row.map(|row| row.cookie).map_err(|error| {
        log::debug!("{error}");
        CtlFailed::Garbled
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_ids_take_several_requests() {
        let eids: Vec<String> = (0..1000).map(|at| format!("\u{1b}{at:060}")).collect();
        let requests = requests(&Command::Unlock(eids.clone()), Format::Json);
        let mut asked = Vec::new();
        for request in &requests {
            assert!(request.len() < LONGEST);
            let request: Value = serde_json::from_str(request).unwrap();
            asked.extend(request["eid"].as_array().unwrap().clone());
        }
        assert!(requests.len() > 1);
        assert_eq!(asked, eids);
    }

    #[test]
    fn what_could_harm_a_terminal_is_not_shown() {
        for (line, harmless) in [
            (&b"{\"eid\":\"a\\u001b\"}"[..], true),
            ("{\"comm\":\"ü\"}".as_bytes(), true),
            (b"\x1b[2J", false),
            (b"\x9b2J", false),
            ("\u{9b}2J".as_bytes(), false),
            (b"a\x7f", false),
            (b"a\rb", false),
        ] {
            assert_eq!(is_harmless(line), harmless, "{line:?}");
        }
    }

    #[test]
    fn a_reply_that_is_not_ok_is_a_sentence() {
        let line = br#"{"ok":false,"request":"unlock","error":"no \u001b","unknown":["a"]}"#;
        let no = reply(line).unwrap().unwrap();
        let error = refused(&no).unwrap_err().to_string();
        assert_eq!(error, "no \\u{1b}");
        assert!(reply(br#"{"eid":"x"}"#).unwrap().is_none());
        assert!(matches!(reply(br#"{"ok":"#), Err(CtlFailed::Garbled)));
    }
}

//! A client of the control socket, and a daemon that has one.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::daemon::{Launch, PATIENCE, Scratch, Tick};

/// A place for a socket. The directory is gone when this is dropped.
pub struct Place {
    _scratch: Scratch,
    pub socket: PathBuf,
}

impl Place {
    pub fn new() -> Place {
        let scratch = Scratch::new();
        Place {
            socket: scratch.path().join("control.sock"),
            _scratch: scratch,
        }
    }

    /// The path as an argument.
    pub fn text(&self) -> &str {
        self.socket.to_str().expect("a path of ours")
    }

    /// A daemon about to be started with its socket here.
    pub fn launch(&self, tick: Tick) -> Launch {
        Launch::new(tick).setting("control", self.text())
    }
}

/// A connection.
pub struct Client {
    lines: BufReader<UnixStream>,
}

impl Client {
    pub fn new(socket: &Path) -> Client {
        let stream = UnixStream::connect(socket).expect("the control socket can be connected to");
        Client::over(stream)
    }

    pub fn over(stream: UnixStream) -> Client {
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        Client {
            lines: BufReader::with_capacity(1 << 16, stream),
        }
    }

    pub fn stream(&self) -> &UnixStream {
        self.lines.get_ref()
    }

    /// Sends a line.
    pub fn say(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.stream()
            .write_all(line.as_bytes())
            .expect("the daemon reads requests");
    }

    /// The next line; none at the end.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line);
        (read.expect("the daemon answers in time") > 0).then_some(line)
    }

    /// The next line as an object.
    pub fn next(&mut self) -> Value {
        let line = self.line().expect("the connection stays open");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"))
    }

    /// The lines up to the reply, and the reply.
    pub fn reply(&mut self) -> (Vec<Value>, Value) {
        let mut lines = Vec::new();
        loop {
            let line = self.next();
            if !line["ok"].is_null() {
                return (lines, line);
            }
            lines.push(line);
        }
    }

    /// Makes a request that succeeds.
    pub fn ask(&mut self, request: &str) -> (Vec<Value>, Value) {
        self.say(request);
        let (lines, reply) = self.reply();
        assert_eq!(reply["ok"], true, "{request}: {reply}");
        (lines, reply)
    }

    /// Makes one that does not; what is said about it.
    pub fn refused(&mut self, request: &str) -> String {
        self.say(request);
        let (lines, reply) = self.reply();
        assert_eq!(lines, Vec::<Value>::new(), "{request}");
        assert_eq!(reply["ok"], false, "{request}: {reply}");
        reply["error"].as_str().expect("a sentence").to_string()
    }

    /// A connection that is told of events.
    pub fn subscribed(socket: &Path) -> Client {
        let mut client = Client::new(socket);
        client.ask(r#"{"request":"subscribe"}"#);
        client
    }

    /// The events up to one, which is the last.
    pub fn events_until(&mut self, last: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            events.push(self.next());
            if events.last().is_some_and(&last) {
                return events;
            }
        }
    }
}

/// Whether a record is the end of this socket.
pub fn is_end_of(record: &Value, cookie: u64) -> bool {
    record["data"]["action"] == "closed" && record["data"]["cookie"] == cookie
}

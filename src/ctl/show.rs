//! Answers as tables and lines for a person.
//!
//! What comes from the daemon holds names from outside: everything goes through
//! [`Plain`].

use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use super::Command;
use crate::log::Plain;

/// An answer under way: rows are kept, since columns are as wide as what they
/// hold; all else is shown as it comes.
#[derive(Debug)]
pub(super) struct Shown {
    kind: Kind,
    rows: Vec<Vec<String>>,
    rest: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Lines,
    Locks,
    Released,
    Sockets,
}

const LOCKS: [&str; 4] = ["EVENT ID", "MUTED", "FIRST", "LAST"];
/// As those of `--dump`.
const SOCKETS: [&str; 8] = [
    "PROTO", "STATE", "LOCAL", "REMOTE", "HOST", "UID", "INODE", "COOKIE",
];

impl Shown {
    pub fn new(command: &Command) -> Shown {
        let kind = match command {
            Command::Locks => Kind::Locks,
            Command::Unlock(_) => Kind::Released,
            Command::Dump => Kind::Sockets,
            _ => Kind::Lines,
        };
        Shown {
            kind,
            rows: Vec::new(),
            rest: String::new(),
        }
    }

    /// Takes a line that is no reply; what can be shown at once goes to `out`.
    pub fn item(&mut self, item: &Value, out: &mut Vec<u8>) {
        match self.kind {
            Kind::Lines => {
                let line = item["text"].as_str().unwrap_or_default();
                out.extend_from_slice(format!("{}\n", Plain(line)).as_bytes());
            }
            Kind::Locks | Kind::Released => self.rows.push(
                ["eid", "muted", "first", "last"]
                    .map(|key| cell(&item[key]))
                    .into(),
            ),
            Kind::Sockets => self.rows.push(socket(item)),
        }
    }

    /// Takes a reply.
    pub fn reply(&mut self, reply: &Value) {
        let written = match reply["request"].as_str() {
            Some("ping") => writeln!(
                self.rest,
                "sockwatch {} is there: process {}, up {}",
                cell(&reply["version"]),
                cell(&reply["pid"]),
                uptime(reply)
            ),
            Some("stats") => stats(reply, &mut self.rest),
            Some("unlock") => writeln!(
                self.rest,
                "released {}, which had muted {}",
                counted(&reply["locks"], "lock"),
                counted(&reply["muted"], "event")
            ),
            Some("reload") => writeln!(self.rest, "{}", cell(&reply["message"])),
            _ => Ok(()),
        };
        written.expect("a String takes any text");
    }

    /// The tables, and what comes below them.
    pub fn finish(mut self) -> String {
        let mut text = match self.kind {
            Kind::Lines => String::new(),
            Kind::Released if self.rows.is_empty() => String::new(),
            Kind::Locks | Kind::Released => table(&LOCKS, &self.rows, 1..2),
            Kind::Sockets => {
                let named = self.rows.iter().any(|row| row[4] != "-");
                let mut titles = SOCKETS.to_vec();
                if !named {
                    titles.remove(4);
                    self.rows.iter_mut().for_each(|row| drop(row.remove(4)));
                }
                let numbers = titles.len() - 3..titles.len();
                table(&titles, &self.rows, numbers)
            }
        };
        text += &self.rest;
        text
    }
}

/// A value as text; `-` where there is none.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => Plain(text).to_string(),
        other => Plain(&other.to_string()).to_string(),
    }
}

fn counted(count: &Value, what: &str) -> String {
    let plural = if *count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", cell(count))
}

fn uptime(reply: &Value) -> String {
    let seconds = reply["uptime_ms"].as_u64().unwrap_or_default() / 1000;
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

fn socket(row: &Value) -> Vec<String> {
    let proto = cell(&row["proto"]);
    let proto = if row["family"] == "ipv6" {
        proto + "6"
    } else {
        proto
    };
    let rest = [
        "state",
        "local",
        "remote",
        "remote_host",
        "uid",
        "inode",
        "cookie",
    ];
    std::iter::once(proto)
        .chain(rest.map(|key| cell(&row[key])))
        .collect()
}

fn stats(reply: &Value, out: &mut String) -> std::fmt::Result {
    writeln!(out, "{:24}{}", "version", cell(&reply["version"]))?;
    writeln!(out, "{:24}{}", "pid", cell(&reply["pid"]))?;
    writeln!(out, "{:24}{}", "uptime", uptime(reply))?;
    for key in ["seq", "sockets", "locks", "clients", "subscribers"] {
        writeln!(out, "{key:24}{}", cell(&reply[key]))?;
    }
    for asked in reply["asked"].as_array().into_iter().flatten() {
        writeln!(out, "{:24}{}", "asked", cell(asked))?;
    }
    for one in reply["missing"].as_array().into_iter().flatten() {
        let [source, reason, cost] = ["source", "reason", "cost"].map(|key| cell(&one[key]));
        writeln!(out, "{:24}{source}: {reason}; {cost}", "missing")?;
    }
    let counters = &reply["counters"];
    for (name, count) in counters.as_object().into_iter().flatten() {
        let reason = &counters[format!("{name}_reason")];
        match (count, reason) {
            // It is shown with what it is the reason for.
            (Value::String(_), _) => {}
            (Value::Null, Value::String(_)) => {
                writeln!(out, "{:24}- ({})", Plain(name).to_string(), cell(reason))?;
            }
            _ => writeln!(out, "{:24}{}", Plain(name).to_string(), cell(count))?,
        }
    }
    Ok(())
}

/// A header and a line for each row; the columns in `numbers` are aligned on
/// their right.
fn table(titles: &[&str], rows: &[Vec<String>], numbers: std::ops::Range<usize>) -> String {
    let titles: Vec<String> = titles.iter().map(|title| (*title).to_owned()).collect();
    let all = || std::iter::once(&titles).chain(rows);
    let widths: Vec<usize> = (0..titles.len())
        .map(|column| {
            let widths = all().map(|row| row[column].chars().count());
            widths.max().unwrap_or_default()
        })
        .collect();
    let mut text = String::new();
    for row in all() {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = " ".repeat(width - cell.chars().count());
            let (before, after) = if numbers.contains(&column) {
                (gap.as_str(), "")
            } else {
                ("", gap.as_str())
            };
            if column > 0 {
                line += "  ";
            }
            line += &format!("{before}{cell}{after}");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_are_aligned_and_harmless() {
        let mut shown = Shown::new(&Command::Locks);
        let mut out = Vec::new();
        for (eid, muted) in [("a\u{1b}[2J", 7), ("bb", 1234567)] {
            let lock = json!({"eid": eid, "muted": muted, "first": "x", "last": "y"});
            shown.item(&lock, &mut out);
        }
        assert!(out.is_empty());
        assert_eq!(
            shown.finish(),
            "EVENT ID      MUTED  FIRST  LAST\n\
             a\\u{1b}[2J        7  x      y\n\
             bb          1234567  x      y\n"
        );
    }

    #[test]
    fn rows_as_those_of_a_dump() {
        let mut shown = Shown::new(&Command::Dump);
        let row = json!({"local": "[::1]:22", "remote": "[::]:0", "proto": "tcp",
            "family": "ipv6", "state": "LISTEN", "remote_host": null, "cookie": 12, "inode": 9,
            "uid": 0});
        shown.item(&row, &mut Vec::new());
        assert_eq!(
            shown.finish(),
            "PROTO  STATE   LOCAL     REMOTE  UID  INODE  COOKIE\n\
             tcp6   LISTEN  [::1]:22  [::]:0    0      9      12\n"
        );
    }

    #[test]
    fn replies_are_sentences() {
        let shown = |command: Command, reply: Value| {
            let mut shown = Shown::new(&command);
            shown.reply(&reply);
            shown.finish()
        };
        let reply = json!({"ok": true, "request": "ping", "version": "1", "pid": 7,
            "uptime_ms": 61_500});
        assert_eq!(
            shown(Command::Ping, reply),
            "sockwatch 1 is there: process 7, up 1m 1s\n"
        );
        let reply = json!({"ok": true, "request": "stats", "version": "1", "pid": 7,
            "uptime_ms": 1000, "counters": {"dumps": 3, "opens_unaccounted": null,
            "opens_unaccounted_reason": "narrowed", "overruns": 0}});
        let text = shown(Command::Stats, reply);
        let counters = "dumps                   3\n\
                        opens_unaccounted       - (narrowed)\n\
                        overruns                0\n";
        assert!(text.ends_with(counters), "{text}");
        let reply = json!({"ok": true, "request": "unlock", "locks": 1, "muted": 2});
        assert_eq!(
            shown(Command::Unlock(Vec::new()), reply),
            "released 1 lock, which had muted 2 events\n"
        );
    }
}

//! What a daemon writes, read as fast as it comes.

use std::io::Read;
use std::time::Instant;

/// One line about a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told<'l> {
    /// It opened.
    Opened(u64),
    /// It closed.
    Closed(u64),
    /// It called connect(), by this hook.
    Called(u64, &'l str),
    /// Something was lost.
    Gap,
}

/// Reads to the end; `each` gets every line with the time at which it was there.
pub fn read(mut events: impl Read, mut each: impl FnMut(Told<'_>, Instant)) -> std::io::Result<()> {
    let (mut buffer, mut filled) = (vec![0; 256 << 10], 0);
    loop {
        let length = events.read(&mut buffer[filled..])?;
        let now = Instant::now();
        if length == 0 {
            return Ok(());
        }
        filled += length;
        let mut begin = 0;
        while let Some(end) = buffer[begin..filled].iter().position(|byte| *byte == b'\n') {
            if let Some(told) = parse(&buffer[begin..begin + end]) {
                each(told, now);
            }
            begin += end + 1;
        }
        buffer.copy_within(begin..filled, 0);
        filled -= begin;
        if filled == buffer.len() {
            return Err(std::io::Error::other("a line without end"));
        }
    }
}

fn parse(line: &[u8]) -> Option<Told<'_>> {
    let text = std::str::from_utf8(line).ok()?;
    let (_, data) = text.split_once("\"data\":{\"action\":\"")?;
    let (action, rest) = data.split_once('"')?;
    if action == "gap" {
        return Some(Told::Gap);
    }
    let (_, rest) = rest.split_once("\"cookie\":")?;
    let cookie = rest[..rest.find(|c: char| !c.is_ascii_digit())?]
        .parse()
        .ok()?;
    match action {
        "opened" => Some(Told::Opened(cookie)),
        "closed" => Some(Told::Closed(cookie)),
        "connect" => {
            let (_, origin) = data.split_once("\"origin\":\"")?;
            Some(Told::Called(cookie, origin.split('"').next()?))
        }
        _ => None,
    }
}

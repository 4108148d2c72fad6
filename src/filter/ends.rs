//! Ends that read well and that no tuple has.
//!
//! To the automaton any digits and dots are an address. But each has one way in
//! which it is written, and a literal in another (`[0::1]:22`, `10.0.0.01:22`) can
//! match nothing. In a pattern of five words each is one word of the tuple, so
//! what is literal in its ends can be held against that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::shape::Subject;
use super::syntax::{GlobError, Pattern};

/// Looks at the ends of a pattern of five words.
pub(super) fn check(text: &str, pattern: &Pattern, subject: Subject) -> Result<(), GlobError> {
    let [first, local, remote, ..] = pattern.words.as_slice() else {
        return Ok(());
    };
    if pattern.words.len() != 5 {
        return Ok(());
    }
    // A connect() has no local end, whatever is written for one.
    let local = (subject == Subject::Sockets).then_some(local);
    for word in local.into_iter().chain([remote]) {
        let written = &text[word.span.clone()];
        let told = |(message, hint)| GlobError::at(word.span.start, message).hint(hint);
        let ip = address(written).map_err(told)?;
        port(written).map_err(told)?;
        if let (Some(ip), Some(proto)) = (ip, &first.literal) {
            family(ip, proto).map_err(told)?;
        }
    }
    Ok(())
}

/// What is wrong, and what may have been meant.
type Fault = (String, Option<String>);

fn is_literal(text: &str) -> bool {
    !text.contains(['*', '?', '[', ']', '{', '}', '\\'])
}

/// The address of an end, if it is literal.
fn address(word: &str) -> Result<Option<IpAddr>, Fault> {
    let fault = |text: &str, meant: Option<String>| {
        let hint = meant.map(|meant| format!("did you mean \"{meant}\"?"));
        let message = format!("no tuple holds the address \"{text}\"");
        Err((message, hint.or_else(|| advice(word))))
    };
    if let Some((text, rest)) = word.strip_prefix('[').and_then(|it| it.split_once(']')) {
        if !is_literal(text) {
            return Ok(None);
        }
        return match text.parse::<Ipv6Addr>() {
            Ok(ip) if shown(ip) == format!("[{text}]") => Ok(Some(ip.into())),
            Ok(ip) => fault(&format!("[{text}]"), Some(shown(ip) + rest)),
            Err(_) => fault(&format!("[{text}]"), None),
        };
    }
    match word.split_once(':') {
        Some((text, rest)) if is_literal(text) => match text.parse::<Ipv4Addr>() {
            Ok(ip) => Ok(Some(ip.into())),
            Err(_) if text.is_empty() && !rest.contains(':') => {
                fault(text, Some(format!("*:{rest}")))
            }
            Err(_) => fault(text, plain_v4(text).map(|ip| format!("{ip}:{rest}"))),
        },
        _ => Ok(None),
    }
}

/// An IPv6 address as a tuple has it.
fn shown(ip: Ipv6Addr) -> String {
    match ip.to_ipv4_mapped() {
        Some(v4) => v4.to_string(),
        None => format!("[{ip}]"),
    }
}

/// An IPv4 address with zeros before its numbers.
fn plain_v4(text: &str) -> Option<Ipv4Addr> {
    let numbers: Option<Vec<u8>> = text.split('.').map(|part| part.parse().ok()).collect();
    let octets: [u8; 4] = numbers?.try_into().ok()?;
    Some(octets.into())
}

/// A port that is all digits, behind the last colon, is the whole port.
fn port(word: &str) -> Result<(), Fault> {
    let Some((before, port)) = word.rsplit_once(':') else {
        return Ok(());
    };
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(());
    }
    match port.parse::<u16>() {
        Ok(number) if number.to_string() == port => Ok(()),
        Ok(number) => Err((
            format!("no tuple holds the port \"{port}\""),
            Some(format!("did you mean \"{before}:{number}\"?")),
        )),
        Err(_) => Err((
            format!("no tuple holds the port \"{port}\""),
            Some("ports end at 65535".to_owned()),
        )),
    }
}

/// Whether the first word takes in sockets with this address.
fn family(ip: IpAddr, proto: &str) -> Result<(), Fault> {
    let (digit, what) = match ip {
        IpAddr::V4(_) => ('4', "an IPv4 address"),
        IpAddr::V6(_) => ('6', "an IPv6 address"),
    };
    match proto.strip_suffix(['4', '6']) {
        Some(plain) if !proto.ends_with(digit) => Err((
            format!("no {proto} socket has {what}"),
            Some(format!("did you mean \"{plain}{digit}\"?")),
        )),
        _ => Ok(()),
    }
}

/// How to write what other tools write differently.
pub(super) fn advice(word: &str) -> Option<String> {
    if word.contains('/') {
        let written = "write a network as \"10.0.*:*\" or \"[2001:db8:*]:*\"";
        return Some(written.to_owned());
    }
    let bare = |text: &str, port: &str| {
        let ip: Ipv6Addr = text.parse().ok()?;
        Some(format!("did you mean \"{}:{port}\"?", shown(ip)))
    };
    let (before, port) = word.rsplit_once(':')?;
    let is_port = |text: &str| text == "*" || text.parse::<u16>().is_ok();
    let unbracketed = is_port(port)
        .then(|| bare(before, port))
        .flatten()
        .or_else(|| bare(word, "*"));
    if unbracketed.is_some() {
        return unbracketed;
    }
    match port.split_once('-') {
        Some((low, high)) if is_port(low) && is_port(high) => {
            Some("write several ports as \"*:{80,443}\" or \"*:80??\"".to_owned())
        }
        _ if port.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            Some("write a port as its number".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    fn compile(glob: &str) -> Result<super::super::Glob, GlobError> {
        check::compile(glob, Subject::Sockets)
    }

    #[test]
    fn a_literal_end_is_written_as_tuples_write_it() {
        for (glob, hint) in [
            ("tcp * [::ffff:10.0.0.1]:* * *", Some("\"10.0.0.1:*\"")),
            ("tcp [0::1]:22 * * *", Some("\"[::1]:22\"")),
            (
                "tcp * [2001:0db8::1]:443 * *",
                Some("\"[2001:db8::1]:443\""),
            ),
            ("tcp * [2001:DB8::1]:443 * *", Some("\"[2001:db8::1]:443\"")),
            ("tcp * [fe80::1%eth0]:443 * *", None),
            ("tcp 10.0.0.01:22 * * *", Some("\"10.0.0.1:22\"")),
            ("tcp * 300.1.1.1:* * *", None),
            ("tcp * 1.2.3:* * *", None),
            ("tcp * :443 * *", Some("\"*:443\"")),
            ("tcp * *:99999 * *", Some("65535")),
            ("tcp * *:0443 * *", Some("\"*:443\"")),
            ("tcp4 * [::1]:* * *", Some("\"tcp6\"")),
            ("udp6 127.0.0.1:* * * *", Some("\"udp4\"")),
            ("tcp * 10.0.0.0/8:* * *", Some("\"10.0.*:*\"")),
            ("tcp * 10.*/8:* * *", Some("\"10.0.*:*\"")),
            ("tcp * *:https * *", Some("number")),
            ("tcp * *:8000-8010 * *", Some("\"*:{80,443}\"")),
            ("tcp * ::1:22 * *", Some("\"[::1]:22\"")),
            ("tcp * 2001:db8::ffff * *", Some("\"[2001:db8::ffff]:*\"")),
            ("tcp * ::1:* * *", Some("\"[::1]:*\"")),
            ("*:443", Some("\"*:443 *\"")),
            ("tcp * *:443", Some("\"tcp * *:443 * *\"")),
            ("tcp * 10.0.0.1:443", Some("\"tcp * 10.0.0.1:443 * *\"")),
            (
                "tcp 10.0.0.1:4 10.0.0.2:5",
                Some("\"tcp 10.0.0.1:4 10.0.0.2:5 * *\""),
            ),
            ("tcp  * ESTABLISHED", None),
        ] {
            let error = compile(glob).unwrap_err();
            let said = error.hint.as_deref().unwrap_or_default();
            assert_eq!(error.hint.is_some(), hint.is_some(), "{glob}: {error}");
            assert!(said.contains(hint.unwrap_or_default()), "{glob}: {error}");
        }
        for glob in [
            "tcp * [::1]* * *",
            "tcp6 [::]:0 * * *",
            r"tcp * \[::1\]:* * *",
            "tcp * {10.0.0.1,[::1]}:443 * *",
            "tcp * 10.0.0.1{:1,:2} * *",
            "{tcp4,udp6} * [::1]:* * *",
            "tcp * *443 * *",
            "tcp * *0443 * *",
            "tcp * {*:99999,*:80} * *",
            "tcp * [::102:304]:0 * *",
            "* 0.0.0.0:65535 * * *",
        ] {
            if let Err(error) = compile(glob) {
                panic!("{glob}: {error}");
            }
        }
        for glob in ["tcp  * ESTABLISHED", "tcp * * * * ESTABLISHED"] {
            let error = compile(glob).unwrap_err();
            assert!(error.message.contains("five words"), "{error}");
        }
    }
}

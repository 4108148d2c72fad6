//! Requests, as the lines that they come as.
//!
//! A line is one JSON object whose keys are all known, each there once. What is
//! wrong with it is a sentence for its sender. Its size is bounded before it gets
//! here, and its depth by the parser.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::config::nearest;
use crate::emit::Terms;
use crate::filter::IdGlob;
use crate::log::Plain;

/// What is asked for.
#[derive(Debug)]
pub(super) enum Request {
    /// Whether it is there.
    Ping,
    /// All counters.
    Stats,
    /// The locks that are held.
    Locks,
    /// Release these: ids or globs.
    Unlock(Vec<String>),
    /// Events from now on.
    Subscribe(Box<Terms>),
    /// The sockets in view.
    Dump,
    /// Read the configuration again.
    Reload,
}

/// A line that cannot be carried out.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct BadRequest {
    /// The request, where it is one that exists.
    pub request: Option<&'static str>,
    /// What is wrong.
    pub message: String,
}

/// The requests and the keys that each may have besides `request`.
const REQUESTS: [(&str, &[&str]); 7] = [
    ("ping", &[]),
    ("stats", &[]),
    ("locks", &[]),
    ("unlock", &["eid"]),
    ("subscribe", &["glob", "format"]),
    ("dump", &[]),
    ("reload", &[]),
];

impl Request {
    /// Reads a line.
    pub fn parse(line: &[u8]) -> Result<Request, BadRequest> {
        let bad = |message| BadRequest {
            request: None,
            message,
        };
        let Fields(fields) = serde_json::from_slice(line).map_err(|error| {
            bad(format!(
                "this is no request: {}; expected an object such as {{\"request\":\"ping\"}}",
                Plain(&error.to_string())
            ))
        })?;
        let (name, keys) = known(&fields).map_err(bad)?;
        read(name, keys, fields).map_err(|message| BadRequest {
            request: Some(name),
            message,
        })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Request::Ping => "ping",
            Request::Stats => "stats",
            Request::Locks => "locks",
            Request::Unlock(_) => "unlock",
            Request::Subscribe(_) => "subscribe",
            Request::Dump => "dump",
            Request::Reload => "reload",
        }
    }
}

/// The request that is named, and its keys.
fn known(fields: &[(String, Value)]) -> Result<(&'static str, &'static [&'static str]), String> {
    let names = || REQUESTS.iter().map(|(name, _)| *name);
    let Some((_, value)) = fields.iter().find(|(key, _)| key == "request") else {
        return Err(format!(
            "the key `request` is missing; it is one of {}",
            listed(names())
        ));
    };
    let Value::String(wanted) = value else {
        return Err(format!(
            "`request` must be a text, one of {}",
            listed(names())
        ));
    };
    match REQUESTS.iter().find(|(name, _)| name == wanted) {
        Some(&found) => Ok(found),
        None => Err(unknown("request", wanted, names())),
    }
}

fn read(name: &str, keys: &[&str], fields: Vec<(String, Value)>) -> Result<Request, String> {
    let (mut eid, mut glob, mut as_text) = (None, None, false);
    for (key, value) in fields {
        match key.as_str() {
            "request" => {}
            "eid" if keys.contains(&"eid") => eid = Some(texts(value)?),
            "glob" if keys.contains(&"glob") => glob = Some(compiled(value)?),
            "format" if keys.contains(&"format") => as_text = is_text(value)?,
            other => {
                return Err(unknown(
                    "key",
                    other,
                    ["request"].into_iter().chain(keys.iter().copied()),
                ));
            }
        }
    }
    Ok(match name {
        "stats" => Request::Stats,
        "locks" => Request::Locks,
        "unlock" => Request::Unlock(eid.ok_or(
            "`unlock` needs `eid`: the event id to release, a glob over event ids, or a list of them",
        )?),
        "subscribe" => Request::Subscribe(Box::new(Terms { glob, as_text })),
        "dump" => Request::Dump,
        "reload" => Request::Reload,
        _ => Request::Ping,
    })
}

fn texts(value: Value) -> Result<Vec<String>, String> {
    const EXPECTED: &str = "`eid` must be a text or a list of texts, at least one";
    let items = match value {
        Value::Array(items) => items,
        one => vec![one],
    };
    let texts: Option<Vec<String>> = items
        .into_iter()
        .map(|item| match item {
            Value::String(text) if !text.is_empty() => Some(text),
            _ => None,
        })
        .collect();
    texts
        .filter(|texts| !texts.is_empty())
        .ok_or_else(|| EXPECTED.to_owned())
}

fn compiled(value: Value) -> Result<IdGlob, String> {
    let Value::String(text) = value else {
        return Err("`glob` must be a text".to_owned());
    };
    IdGlob::new(&text).map_err(|error| {
        let error = error.to_string();
        format!("the glob `{}` is no glob: {}", Plain(&text), Plain(&error))
    })
}

fn is_text(value: Value) -> Result<bool, String> {
    match value.as_str() {
        Some("json") => Ok(false),
        Some("text") => Ok(true),
        _ => Err("`format` must be `json` or `text`".to_owned()),
    }
}

fn unknown<'a>(what: &str, found: &str, names: impl Iterator<Item = &'a str> + Clone) -> String {
    let shown: String = found.chars().take(64).collect();
    let hint = match nearest(found, names.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known: {}", listed(names)),
    };
    format!("there is no {what} `{}` here; {hint}", Plain(&shown))
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// The keys and values of an object, each key once.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields: Vec<(String, Value)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if fields.iter().any(|(known, _)| *known == key) {
                        return Err(serde::de::Error::custom(format!("the key `{key}` twice")));
                    }
                    // More than any request has: one of them is unknown, and
                    // which is found among so many.
                    if fields.len() < 16 {
                        fields.push((key, value));
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(line: &str) -> String {
        match Request::parse(line.as_bytes()) {
            Ok(request) => panic!("{line} is taken for {request:?}"),
            Err(bad) => bad.message,
        }
    }

    #[test]
    fn every_request_by_its_name() {
        for (name, keys) in REQUESTS {
            let eid = if keys.contains(&"eid") {
                r#","eid":"a""#
            } else {
                ""
            };
            let line = format!("{{\"request\":\"{name}\"{eid}}}");
            assert_eq!(Request::parse(line.as_bytes()).unwrap().name(), name);
        }
        let line = br#"{"eid":["a","b*"],"request":"unlock"}"#;
        match Request::parse(line) {
            Ok(Request::Unlock(ids)) => assert_eq!(ids, ["a", "b*"]),
            other => panic!("{other:?}"),
        }
        match Request::parse(br#"{"request":"subscribe","glob":"a|*","format":"text"}"#) {
            Ok(Request::Subscribe(terms)) => {
                assert!(terms.as_text && terms.glob.unwrap().matches("a|b"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, expected) in [
            ("", "no request"),
            ("ping", "no request"),
            ("[]", "expected an object"),
            (r#"{"request":"ping"} x"#, "trailing"),
            (r#"{"request":"ping","request":"ping"}"#, "twice"),
            ("{}", "`request` is missing"),
            (r#"{"request":7}"#, "must be a text"),
            (r#"{"request":"unlok"}"#, "did you mean `unlock`?"),
            (r#"{"request":"\u001b[2J"}"#, "\\u{1b}"),
            (r#"{"request":"unlock","eids":"x"}"#, "did you mean `eid`?"),
            (r#"{"request":"ping","eid":"x"}"#, "known: `request`"),
            (r#"{"request":"unlock"}"#, "needs `eid`"),
            (r#"{"request":"unlock","eid":[]}"#, "at least one"),
            (r#"{"request":"unlock","eid":[1]}"#, "list of texts"),
            (r#"{"request":"subscribe","glob":"{a"}"#, "no glob"),
            (r#"{"request":"subscribe","format":"xml"}"#, "`json`"),
        ] {
            let error = error(line);
            assert!(error.contains(expected), "{line}: {error}");
        }
        let deep = format!("{}{}", "[".repeat(8000), "]".repeat(8000));
        let deep = format!("{{\"request\":{deep}}}");
        assert!(error(&deep).contains("recursion"));
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer(line: Vec<u8>) {
            if let Err(bad) = Request::parse(&line) {
                prop_assert!(!bad.message.contains(char::is_control));
            }
        }
    }
}

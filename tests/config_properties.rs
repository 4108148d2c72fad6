//! What holds for every text: loading it never panics, what the checks accept
//! serde_yaml accepts too, and every message is fit for a terminal.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use sockwatch::config::{self, Settings};

/// Good configurations that the mutations start from.
fn corpus() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shipped = ["configs/net-socket.yaml", "configs/sockwatch.yaml"]
        .map(|name| fs::read_to_string(root.join(name)).expect("a shipped configuration"));
    let mut corpus = Vec::from(shipped);
    for text in [
        "{a: {listener: net.socket, opts: [opened], args: {\"initial\": true, patterns: [\"tcp * * * *\", 'udp * * * *']}}, b: {listener: \"net\\u002esocket\", tag: t}}\n",
        "sensors:\n  a: &a\n    listener: net.socket\n    args: &x\n      ignore: [&g 'udp * * * *', *g]\n      dns: true\n  b:\n    listener: net.socket\n    args: *x\n  c: *a\n",
        "daemon: {interval: 2s, receive-buffer: 4KiB, queue: 7, stdout: false}\nsensors:\n  a:\n    listener:   net.socket\n    description: >-\n      folded\n      text\n\n      more\n    args:\n      patterns:\n      - tcp * *:443 * *\n      - >-\n        udp * *\n        * *\n",
        "# why\n---\na:\n  listener: net.socket\n  description: \"x\\\n    y\\tz\n\n    w\"\n  tag: 'it''s'\n...\n# end\n",
    ] {
        corpus.push(text.to_owned());
    }
    corpus
}

/// Pieces of YAML that turn one meaning into another.
const PIECES: [&str; 48] = [
    " ",
    "  ",
    "    ",
    "\n",
    "\r\n",
    "\r",
    "\t",
    ":",
    ": ",
    "- ",
    "-",
    "? ",
    "&a ",
    "*a",
    "&b ",
    "*b",
    "<<: ",
    "!!str ",
    "!x ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "\"",
    "'",
    "|\n",
    ">-\n",
    "|2\n",
    "#",
    " # ",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "\\",
    "\\\n",
    "~",
    "null",
    "true",
    "5",
    "0x1f",
    "1s",
    "\u{e9}",
    "\u{2028}",
    "\u{85}",
    "\u{feff}",
    "\u{0}",
    "net.socket",
];

#[derive(Clone, Debug)]
enum Mutation {
    /// Puts a piece somewhere.
    Insert(prop::sample::Index, &'static str),
    /// Takes some characters out.
    Cut(prop::sample::Index, usize),
    /// Copies some characters to another place.
    Copy(prop::sample::Index, prop::sample::Index, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), select(&PIECES[..])).prop_map(|(at, piece)| Mutation::Insert(at, piece)),
        (index(), 1..12_usize).prop_map(|(at, length)| Mutation::Cut(at, length)),
        (index(), index(), 1..40_usize).prop_map(|(from, to, n)| Mutation::Copy(from, to, n)),
    ]
}

fn mutated(text: &str, mutations: &[Mutation]) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for mutation in mutations {
        let length = text.len() + 1;
        match mutation {
            Mutation::Insert(at, piece) => {
                let at = at.index(length);
                text.splice(at..at, piece.chars());
            }
            Mutation::Cut(at, count) => {
                let at = at.index(length);
                let end = (at + count).min(text.len());
                text.drain(at..end);
            }
            Mutation::Copy(from, to, count) => {
                let from = from.index(length);
                let end = (from + count).min(text.len());
                let copy = text[from..end].to_vec();
                let to = to.index(length);
                text.splice(to..to, copy);
            }
        }
    }
    text.into_iter().collect()
}

/// Loads, and holds the answer against what every answer promises.
fn load(bytes: &[u8]) -> Result<Settings, TestCaseError> {
    match config::load_bytes("t", bytes.to_vec(), &[]) {
        Ok(settings) => {
            prop_assert!(!settings.sensors.is_empty());
            Ok(settings)
        }
        Err(problems) => {
            prop_assert!(!problems.is_empty());
            for problem in &problems {
                let message = problem.to_string();
                prop_assert!(!message.contains(char::is_control), "{message:?}");
                prop_assert!(message.contains(", expected "), "{message}");
                prop_assert!(
                    !message.contains("read in two ways"),
                    "{message} in {:?}",
                    String::from_utf8_lossy(bytes)
                );
            }
            Err(TestCaseError::reject("a bad configuration"))
        }
    }
}

/// A refusal is an answer too; only broken promises fail.
fn promises(bytes: &[u8]) -> Result<(), TestCaseError> {
    match load(bytes) {
        Ok(_) | Err(TestCaseError::Reject(_)) => Ok(()),
        Err(broken) => Err(broken),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2048,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..200)) {
        promises(&bytes)?;
    }

    #[test]
    fn any_pieces(pieces in vec(select(&PIECES[..]), 0..40)) {
        promises(pieces.concat().as_bytes())?;
    }

    #[test]
    fn mutated_configurations(text in select(corpus()), mutations in vec(mutation(), 0..6)) {
        promises(mutated(&text, &mutations).as_bytes())?;
    }

    /// The columns of a configuration do not depend on what the text is made of:
    /// a key that is moved behind others is found where it was put.
    #[test]
    fn a_bad_key_is_found_where_it_stands(
        before in vec("[a-zé漢\u{1F600}]{1,9}", 0..4),
        blanks in 0..5_usize,
        lines in 0..5_usize,
    ) {
        let mut text = "# patern\n".repeat(lines);
        text.push_str("web: {listener: net.socket, profile: [");
        for word in &before {
            text.push_str(&format!("\"{word}\", "));
        }
        text.push_str("\"patern: x\"], args: {");
        text.push_str(&" ".repeat(blanks));
        let column = text.lines().last().map_or(0, |line| line.chars().count()) + 1;
        text.push_str("patern: 1}}\n");
        let problems = config::load_bytes("t", text.into_bytes(), &[]).expect_err("a bad key");
        let [problem] = problems.as_slice() else {
            return Err(TestCaseError::fail("one problem"));
        };
        let position = problem.position().map(|at| (at.line as usize, at.column as usize));
        prop_assert_eq!(position, Some((lines + 1, column)));
    }
}

/// Nothing takes more than its share of time: 48 texts of 128 KiB are answered
/// at once, and a minute of a quadratic one would be seen.
#[test]
fn one_piece_over_and_over_is_answered() {
    for piece in PIECES {
        let text = piece.repeat((128 << 10) / piece.len());
        for text in [
            text.clone(),
            format!("a: [{text}"),
            format!("a:\n  b: {text}"),
        ] {
            assert!(promises(text.as_bytes()).is_ok(), "{piece:?}");
        }
    }
}

/// The mutations are only worth something if many of their results still load.
#[test]
fn the_corpus_is_good() {
    for text in corpus() {
        assert!(load(text.as_bytes()).is_ok(), "{text}");
    }
}

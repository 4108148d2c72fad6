//! Each kind of record, held byte for byte against `fixtures/events/`.

mod records;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use serde_json::Value;

use self::records::{
    attributed_rows, closed, elsewhere, events, gap_queue, handed_over, minisocket_row, opened,
    own_event, row, socket_event, udp,
};
use super::{Json, Text, TextTable};
use crate::log::is_harmful;
use crate::model::{Data, Degraded, Event, Host, Name, SocketData};

/// Compares with a fixture; with SOCKWATCH_BLESS set writes it instead.
fn hold(name: &str, found: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/events")
        .join(name);
    if std::env::var_os("SOCKWATCH_BLESS").is_some() {
        fs::write(&path, found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(String::from_utf8_lossy(found), expected, "{name}");
}

fn json(event: &Event) -> Vec<u8> {
    let mut out = Vec::new();
    Json::new("edge-7").event(event, &mut out).unwrap();
    out
}

fn text(event: &Event) -> Vec<u8> {
    let mut out = Vec::new();
    Text::new(true).event(event, &mut out).unwrap();
    out
}

#[test]
fn json_events_are_the_golden_ones() {
    for (name, event) in events() {
        let line = json(&event);
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["seq"], event.seq);
        hold(&format!("{name}.json"), &line);
    }
}

#[test]
fn text_events_are_the_golden_ones() {
    for (name, event) in events() {
        hold(&format!("{name}.txt"), &text(&event));
    }
}

#[test]
fn dump_rows_are_the_golden_ones() {
    let mut out = Vec::new();
    let renderer = Json::new("edge-7");
    for row in [row(), minisocket_row()] {
        renderer.row(&row, &mut out);
    }
    hold("dump.json", &out);
}

#[test]
fn rows_with_their_processes_are_the_golden_ones() {
    let mut out = Vec::new();
    for row in &attributed_rows() {
        Json::new("edge-7").row(row, &mut out);
    }
    hold("dump-process.json", &out);
    for line in String::from_utf8(out).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        assert!(row["process"].is_object() || row["process_reason"].is_string());
        assert!(!line.contains("secret"), "a command line nobody asked for");
    }
    let out = table(attributed_rows().to_vec());
    hold("dump-process.txt", &out);
    assert!(
        !String::from_utf8(out)
            .unwrap()
            .replace('\n', "")
            .contains(is_harmful)
    );
}

#[test]
fn who_called_and_who_has_it_are_told_apart() {
    let lines = handed_over().map(|data| json(&socket_event(data)));
    hold("holders.json", &lines.concat());
}

#[test]
fn dump_tables_are_the_golden_ones() {
    let mut named = closed();
    named.action = None;
    hold(
        "dump-names.txt",
        &table(vec![row(), named, udp(), minisocket_row()]),
    );
    hold("dump.txt", &table(vec![row(), udp()]));
    hold("dump-netns.txt", &table(vec![row(), elsewhere(), udp()]));
}

/// All rows as one piece.
fn table(rows: Vec<SocketData>) -> Vec<u8> {
    let mut out = Vec::new();
    TextTable::of(&rows).piece(rows.iter(), &mut out);
    out
}

/// What came before stands as it is; what comes is as wide at least.
#[test]
fn a_later_piece_widens_the_columns() {
    let mut wide = row();
    wide.cookie = crate::model::Cookie(u64::MAX);
    let (mut table, mut out) = (TextTable::plain(), Vec::new());
    for rows in [vec![row()], vec![wide, row()], vec![row()]] {
        table.piece(rows.iter(), &mut out);
    }
    let text = String::from_utf8(out).unwrap();
    let widths: Vec<usize> = text.lines().map(str::len).collect();
    let [title, first, wide, second, third] = widths[..] else {
        panic!("{text}");
    };
    assert!(
        title == first && first < wide && wide == second && wide == third,
        "{text}"
    );
}

#[test]
fn one_sensor_needs_no_name() {
    let mut out = Vec::new();
    let event = socket_event(opened());
    Text::new(false).event(&event, &mut out).unwrap();
    assert!(!String::from_utf8(out).unwrap().contains("sensor="));
}

#[test]
fn a_clock_that_rfc_3339_cannot_express_loses_no_record() {
    for (ts, shown) in [
        (
            UNIX_EPOCH - Duration::from_secs(1),
            "1970-01-01T00:00:00.000000Z",
        ),
        (
            UNIX_EPOCH + Duration::from_secs(1 << 40),
            "9999-12-31T23:59:59.999999Z",
        ),
    ] {
        let event = Event {
            ts,
            ..socket_event(opened())
        };
        let value: Value = serde_json::from_slice(&json(&event)).unwrap();
        assert_eq!(value["ts"], shown);
    }
}

fn assert_one_harmless_line(line: &[u8]) -> Result<(), TestCaseError> {
    let line = std::str::from_utf8(line).unwrap();
    prop_assert!(line.ends_with('\n'));
    prop_assert!(!line.trim_end_matches('\n').contains(is_harmful));
    prop_assert_eq!(line.matches('\n').count(), 1);
    Ok(())
}

/// Text with plenty of what a terminal must not see.
fn any_text() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof![
            any::<char>(),
            (0u32..0x3000).prop_filter_map("a character", char::from_u32),
            prop::sample::select(vec![
                '\n',
                '\x1b',
                '\u{9b}',
                '\u{202e}',
                '\u{e0041}',
                '"',
                '\\'
            ]),
        ],
        0..40,
    )
    .prop_map(String::from_iter)
}

proptest! {
    #[test]
    fn any_text_is_one_harmless_line_that_parses_back(
        eid in any_text(), sensor in any_text(), reason in any_text(), host in any_text(),
    ) {
        let event = Event {
            eid: eid.clone(),
            sensor: Arc::from(sensor.as_str()),
            data: Data::Degraded(Degraded {
                source: "notices",
                missing: Vec::new(),
                reason: reason.clone(),
                cost: String::new(),
            }),
            ..own_event("", gap_queue())
        };
        let mut line = Vec::new();
        Json::new(host.as_str()).event(&event, &mut line).unwrap();
        assert_one_harmless_line(&line)?;
        let value: Value = serde_json::from_slice(&line).unwrap();
        prop_assert_eq!(value["eid"].as_str(), Some(eid.as_str()));
        prop_assert_eq!(value["sensor"].as_str(), Some(sensor.as_str()));
        prop_assert_eq!(value["host"].as_str(), Some(host.as_str()));
        prop_assert_eq!(value["data"]["reason"].as_str(), Some(reason.as_str()));
        assert_one_harmless_line(&text(&event))?;
    }

    #[test]
    fn any_name_is_one_harmless_line(
        raw in prop::collection::vec(any::<u8>(), 0..255), sensor in any_text(),
    ) {
        let name = Name::escaped(&raw);
        let event = Event {
            sensor: Arc::from(sensor.as_str()),
            ..socket_event(SocketData { host: Host::Named(name.clone()), ..closed() })
        };
        let line = json(&event);
        assert_one_harmless_line(&line)?;
        let value: Value = serde_json::from_slice(&line).unwrap();
        prop_assert_eq!(value["data"]["remote_host"].as_str(), Some(name.as_str()));
        assert_one_harmless_line(&text(&event))?;
    }
}

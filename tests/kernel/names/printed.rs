//! `--dump --dns`.

use serde_json::{Value, json};

use super::server::name;
use super::{datagrams, run, web};
use crate::daemon::once;
use crate::sock::{Domain, Sock};

const PATTERN: &str = "* * 203.0.113.*:* * *";

fn dump(args: &[&str]) -> Vec<Value> {
    let output = once(&[&["--dump", "--format", "json"], args].concat());
    assert!(output.status.success(), "{}", crate::child::text(&output));
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line is an object"))
        .collect()
}

#[test]
fn a_dump_prints_the_names_it_was_asked_for() {
    run(
        "names::printed::a_dump_prints_the_names_it_was_asked_for",
        |server| {
            server.answer(web(1), name("one.example.org"));
            server.answer(web(2), name("two.example.net"));
            server.hold(web(4));
            let hosts = [
                (web(1), json!("one.example.org"), None),
                (web(1), json!("one.example.org"), None),
                (web(2), json!("two.example.net"), None),
                (web(3), Value::Null, Some("not_found")),
                (web(4), Value::Null, Some("timeout")),
            ];
            let sockets: Vec<Sock> = hosts
                .iter()
                .map(|(ip, ..)| datagrams(Domain::V4, *ip))
                .collect();

            let rows = dump(&["--pattern", PATTERN]);
            assert_eq!(rows.len(), 5);
            assert!(rows.iter().all(|row| row["remote_host"].is_null()));
            assert_eq!(server.log().len(), 0, "asked without --dns");

            let rows = dump(&["--pattern", PATTERN, "--dns"]);
            assert_eq!(rows.len(), 5);
            for (socket, (ip, host, reason)) in sockets.iter().zip(&hosts) {
                let row = rows
                    .iter()
                    .find(|row| row["cookie"] == socket.cookie)
                    .expect("a row");
                assert_eq!(row["remote_host"], *host, "{ip}");
                assert_eq!(
                    row.get("remote_host_reason").and_then(Value::as_str),
                    *reason,
                    "{ip}"
                );
            }
            let mut log = server.log();
            log.sort();
            assert_eq!(log, [web(1), web(2), web(3), web(4)]);

            // And goes by them: of the same five, those with the right name.
            let rows = dump(&["--pattern", "* * * *.example.org *", "--dns"]);
            let mut cookies: Vec<_> = rows.iter().map(|row| row["cookie"].as_u64()).collect();
            cookies.sort();
            assert_eq!(cookies, [Some(sockets[0].cookie), Some(sockets[1].cookie)]);
        },
    );
}

//! What a daemon without any privilege does all the same, and what it says that
//! it cannot do.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::control::client::{Client, Place};
use crate::daemon::Tick;
use crate::netns;
use crate::seccomp::Refusal;
use crate::sock::{Domain, Sock};

const SENSORS: &str = "  calls: {listener: net.tcp_connect}\n  sockets: {listener: net.socket}\n";

/// The sources of these, in their order.
fn sources<'a>(lacks: impl IntoIterator<Item = &'a Value>) -> Vec<&'a str> {
    let each = lacks.into_iter().map(|one| one["source"].as_str());
    each.map(|source| source.expect("a word")).collect()
}

#[test]
fn what_is_missing_is_said_once_and_the_rest_works() {
    let name = "unprivileged::what_is_missing_is_said_once_and_the_rest_works";
    netns::run(name, || {
        if !netns::is_root() {
            return netns::skip("only root can start it as somebody else");
        }
        let listener = Sock::listener(Domain::V4);
        let place = Place::new();
        let dir = place.socket.parent().expect("a directory");
        let anybody = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(dir, anybody).expect("a directory of ours");
        let daemon = place
            .launch(Tick::Fast)
            .sensors(SENSORS)
            .without_privilege()
            // Not even what net.core.rmem_max allows, as that may be a lot here.
            .refused(Refusal::BUFFERS)
            .start();
        let (client, server) = Sock::pair(&listener);
        let cookies = [client.cookie, server.cookie];
        daemon.opened(&cookies);

        let mut asking = Client::new(&place.socket);
        asking.say(r#"{"request":"stats"}"#);
        let (_, reply) = asking.reply();
        let missing = reply["missing"].as_array().expect("a list");
        let all = ["connect", "dns_tap", "processes", "receive_buffer"];
        let mut found = sources(missing);
        found.sort_unstable();
        assert_eq!(found, all, "{reply}");
        for one in missing {
            for key in ["reason", "cost"] {
                assert!(
                    one[key].as_str().is_some_and(|text| !text.is_empty()),
                    "{one}"
                );
            }
        }

        drop((client, server));
        let record = daemon.finish(&cookies);
        let told = [record.own(), record.lacks()].concat();
        assert!(told.iter().all(|one| one["data"]["action"] == "degraded"));
        let mut told = sources(told.into_iter().map(|one| &one["data"]));
        told.sort_unstable();
        assert_eq!(told, all, "each once");
        for cookie in cookies {
            for action in ["opened", "closed"] {
                let event = record.find(action, cookie);
                let data = &event["data"];
                assert_eq!(data["process"], Value::Null, "{event}");
                assert_eq!(data["process_reason"], "not_permitted", "{event}");
                assert!(data["cgroup"].is_string(), "{event}");
                assert!(data["uid"].is_u64() && data["inode"].is_u64(), "{event}");
            }
            assert_eq!(record.evidence("closed", cookie), "notified");
        }
    });
}

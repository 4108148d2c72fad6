//! Connect() calls on their way to the sinks.

use super::*;

fn connects(patterns: &[&str], results: bool) -> Stage {
    let patterns: Vec<_> = patterns.iter().map(|pattern| pattern.to_string()).collect();
    Stage {
        listener: Listener::TcpConnect,
        default_tag: "net.tcp_connect".into(),
        filter: crate::filter::Globs::new()
            .filter(&patterns, &[], crate::filter::Subject::Connects)
            .unwrap(),
        results,
        ..stage(&[], false)
    }
}

fn attempt(remote: &str) -> Attempt {
    let remote: std::net::SocketAddr = remote.parse().unwrap();
    Attempt {
        cookie: Cookie(5),
        netns: Some(Netns(1)),
        remote: Endpoint::new(remote.ip(), remote.port()),
        family: Family::V4,
        v4_mapped: false,
        mptcp: false,
        sighting: Sighting::Table {
            evidence: Evidence::Dump,
            state: TcpState::SynSent,
            owner: Owner::Known { uid: 0, inode: 1 },
            cgroup_id: None,
        },
    }
}

#[test]
fn a_connect_goes_to_the_sensors_of_its_kind_with_what_each_collects() {
    let named = connects(&["* example.org CONNECT"], true);
    let plain = Stage {
        id: "plain".into(),
        tag: Some("t".into()),
        ..connects(&[], false)
    };
    let mut bench = Bench::new(vec![stage(&[], false), named, plain]);
    let names = [Name::escaped(b"example.org")];
    let now = bench.at(0);
    let attempt = attempt("203.0.113.7:443");
    bench.pipeline.connect(&attempt, None, &names, None, now);
    let none = Some(NoResults::NotSeen);
    bench.pipeline.connect(&attempt, None, &[], none, now);
    let told: Vec<_> = bench.kept.events.take();
    let told: Vec<_> = told
        .iter()
        .map(|event| match &event.data {
            Data::Connect(data) => (event.eid.as_str(), data.results.len(), data.no_results),
            other => panic!("{other:?}"),
        })
        .collect();
    let disabled = Some(NoResults::Disabled);
    assert_eq!(
        told,
        [
            ("s|net.tcp_connect|connect@203.0.113.7:443|0", 1, None),
            (
                "plain|net.tcp_connect@t|connect@203.0.113.7:443|0",
                0,
                disabled
            ),
            (
                "plain|net.tcp_connect@t|connect@203.0.113.7:443|0",
                0,
                disabled
            ),
        ]
    );
}

#[test]
fn a_connect_is_locked_as_a_socket_is() {
    let locked = Stage {
        locked: true,
        ..connects(&[], true)
    };
    let mut bench = Bench::new(vec![locked]);
    let now = bench.at(0);
    let connect = |bench: &mut Bench, remote: &str| {
        bench
            .pipeline
            .connect(&attempt(remote), None, &[], Some(NoResults::NotSeen), now);
        bench.kept.events.take().len()
    };
    *bench.kept.refuse.borrow_mut() = true;
    assert_eq!(connect(&mut bench, "203.0.113.7:443"), 0, "nobody takes it");
    *bench.kept.refuse.borrow_mut() = false;
    assert_eq!(
        connect(&mut bench, "203.0.113.7:443"),
        1,
        "so it locks nothing"
    );
    assert_eq!(connect(&mut bench, "203.0.113.7:443"), 0);
    assert_eq!(connect(&mut bench, "203.0.113.7:80"), 1);
    assert_eq!(bench.stats.events_muted.count(), 1);
    assert_eq!(bench.pipeline.release_locks().muted, 1);
    assert_eq!(connect(&mut bench, "203.0.113.7:443"), 1);
}

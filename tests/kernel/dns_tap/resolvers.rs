//! Against dnsmasq.

use std::time::Duration;

use sockwatch::model::NoResults;

use super::{Tapped, ip};
use crate::dnsmasq::{A, AAAA, Dnsmasq};
use crate::netns;

const CONF: &[&str] = &[
    "host-record=host.test,192.0.2.1,2001:db8::1,300",
    "cname=Alias.test,middle.test,300",
    "cname=middle.test,last.test,300",
    "cname=last.test,host.test,300",
    "host-record=one.test,192.0.2.3",
    "host-record=two.test,192.0.2.3",
    "host-record=three.test,192.0.2.3",
];

#[test]
fn a_aaaa_and_cnames() {
    netns::run("dns_tap::resolvers::a_aaaa_and_cnames", || {
        let Some(server) = Dnsmasq::start("127.0.0.1", CONF, "") else {
            return;
        };
        let resolver = server.resolver();
        let mut tap = Tapped::open();
        assert_eq!(tap.names(ip("192.0.2.1")), Err(NoResults::NotSeen));
        assert_eq!(resolver.resolve("Host.test", A), [ip("192.0.2.1")]);
        assert_eq!(tap.names(ip("192.0.2.1")).unwrap(), ["host.test"]);
        assert_eq!(tap.names(ip("2001:db8::1")), Err(NoResults::NotSeen));
        assert_eq!(resolver.resolve("host.test", AAAA), [ip("2001:db8::1")]);
        assert_eq!(tap.names(ip("2001:db8::1")).unwrap(), ["host.test"]);
        assert_eq!(resolver.resolve("alias.test", A), [ip("192.0.2.1")]);
        let chain = ["alias.test", "middle.test", "last.test", "host.test"];
        assert_eq!(tap.names(ip("192.0.2.1")).unwrap(), chain);
        let counts = tap.counts();
        assert_eq!(counts, [("dns_answers", 3), ("dns_queries", 3)].into());
    });
}

/// An hour passes by the clock that is handed in.
#[test]
fn names_expire_by_the_ttl_that_was_answered() {
    netns::run(
        "dns_tap::resolvers::names_expire_by_the_ttl_that_was_answered",
        || {
            let Some(server) = Dnsmasq::start("127.0.0.1", CONF, "") else {
                return;
            };
            let mut tap = Tapped::open();
            // One with 300 s, one with none, which lasts 60 s.
            server.resolver().resolve("host.test", A);
            server.resolver().resolve("one.test", A);
            for (address, name, lasts) in [
                ("192.0.2.1", "host.test", 300),
                ("192.0.2.3", "one.test", 60),
            ] {
                let mut after =
                    |seconds| tap.names_after(Duration::from_secs(seconds), ip(address));
                assert_eq!(after(lasts / 2).unwrap(), [name]);
                assert_eq!(after(lasts + 1), Err(NoResults::Expired));
            }
        },
    );
}

#[test]
fn one_address_with_three_names() {
    netns::run("dns_tap::resolvers::one_address_with_three_names", || {
        let Some(server) = Dnsmasq::start("127.0.0.1", CONF, "") else {
            return;
        };
        let resolver = server.resolver();
        let mut tap = Tapped::open();
        for name in ["one.test", "two.test", "three.test"] {
            assert_eq!(resolver.resolve(name, A), [ip("192.0.2.3")]);
        }
        let newest_first = ["three.test", "two.test", "one.test"];
        assert_eq!(tap.names(ip("192.0.2.3")).unwrap(), newest_first);
        resolver.resolve("one.test", A);
        let newest_first = ["one.test", "three.test", "two.test"];
        assert_eq!(tap.names(ip("192.0.2.3")).unwrap(), newest_first);
    });
}

#[test]
fn a_truncated_answer_retried_over_tcp() {
    netns::run(
        "dns_tap::resolvers::a_truncated_answer_retried_over_tcp",
        || {
            let many: Vec<_> = (1..=200).map(|n| format!("198.51.100.{n}")).collect();
            let hosts: String = many.iter().map(|ip| format!("{ip} many.test\n")).collect();
            let Some(server) = Dnsmasq::start("127.0.0.1", &[], &hosts) else {
                return;
            };
            let mut tap = Tapped::open();
            let found = server.resolver().resolve("many.test", A);
            assert_eq!(found.len(), 200);
            for address in &many {
                assert_eq!(tap.names(ip(address)).unwrap(), ["many.test"]);
            }
            let counts = tap.counts();
            assert_eq!(counts, [("dns_answers", 2), ("dns_queries", 2)].into());
        },
    );
}

/// A stub on one loopback address asks a server on another: both exchanges are
/// seen, and say the same.
#[test]
fn a_stub_on_loopback() {
    netns::run("dns_tap::resolvers::a_stub_on_loopback", || {
        let Some(_server) = Dnsmasq::start("127.0.0.1", CONF, "") else {
            return;
        };
        let Some(stub) = Dnsmasq::start("127.0.0.53", &["server=127.0.0.1"], "") else {
            return;
        };
        let mut tap = Tapped::open();
        assert_eq!(stub.resolver().resolve("alias.test", A), [ip("192.0.2.1")]);
        let chain = ["alias.test", "middle.test", "last.test", "host.test"];
        assert_eq!(tap.names(ip("192.0.2.1")).unwrap(), chain);
        let counts = tap.counts();
        assert_eq!(counts, [("dns_answers", 2), ("dns_queries", 2)].into());
    });
}

//! Any bytes as a datagram: no panic, an end, and payloads within the datagram.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sockwatch::model::Proto;
use sockwatch::wire::sock_diag::{self, Body, Messages};

fuzz_target!(|datagram: &[u8]| {
    let mut messages = 0;
    for message in Messages::new(datagram) {
        messages += 1;
        assert!(
            messages <= datagram.len() / 16 + 1,
            "more messages than fit"
        );
        let Ok(Body::Socket(payload)) = message.map(|message| message.body) else {
            continue;
        };
        let (inner, outer) = (payload.as_ptr_range(), datagram.as_ptr_range());
        assert!(outer.start <= inner.start && inner.end <= outer.end);
        for proto in Proto::ALL {
            if let Ok(row) = sock_diag::row(payload, proto) {
                assert_eq!(row.id.proto, proto);
            }
        }
        if let Ok(notice) = sock_diag::notice(payload) {
            assert_eq!(notice.tcp.is_some(), notice.id.proto == Proto::Tcp);
        }
    }
});

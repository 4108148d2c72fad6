//! Any bytes as a packet of port 53, and as a message: no panic, an end, payloads
//! within the packet, and answers within their bounds.

#![no_main]

use std::hash::DefaultHasher;

use libfuzzer_sys::fuzz_target;
use sockwatch::wire::dns::packet::{self, Body};
use sockwatch::wire::dns::{CHAIN, Message, RECORDS};

fuzz_target!(|bytes: &[u8]| {
    message(bytes, true);
    let Ok(packet) = packet::read(bytes) else {
        return;
    };
    let (payload, whole) = match packet.body {
        Body::Udp { payload, whole } => (payload, whole),
        Body::Tcp(segment) => (segment.payload, false),
    };
    let (inner, outer) = (payload.as_ptr_range(), bytes.as_ptr_range());
    assert!(outer.start <= inner.start && inner.end <= outer.end);
    message(payload, whole);
});

fn message(bytes: &[u8], whole: bool) {
    let Ok(message) = Message::read(bytes) else {
        return;
    };
    message.hash_question(&mut DefaultHasher::new());
    if let Ok(Some(answer)) = message.answer(whole) {
        assert!((1..=CHAIN).contains(&answer.names.len()));
        assert!((1..=RECORDS).contains(&answer.addresses.len()));
    }
}

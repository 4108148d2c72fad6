//! Any bytes as a datagram of rtnetlink about namespace ids: no panic, and an end.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sockwatch::wire::nsid;

fuzz_target!(|datagram: &[u8]| {
    assert!(
        nsid::read(datagram).count() <= datagram.len() / 16,
        "more messages than fit"
    );
});

//! Any bytes as a ring record: no panic, and nothing read that cannot be.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sockwatch::model::{Cookie, Family, Origin};
use sockwatch::wire::connect::{self, LENGTH};

fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = connect::record(bytes) else {
        return;
    };
    assert_eq!(bytes.len(), LENGTH);
    let connect = record.connect;
    assert_ne!(connect.cookie, Cookie(0));
    assert_ne!(connect.origin, Origin::SockDiag);
    assert_eq!(
        connect.v4_mapped,
        connect.family == Family::V6 && connect.remote.ip.is_ipv4()
    );
    assert!(connect.caller.comm.bytes().len() <= 16);
});

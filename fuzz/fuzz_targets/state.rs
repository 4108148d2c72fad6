//! Any bytes as a state file: no panic, and nothing is believed that has no base.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sockwatch::state::{self, Frames, Head, Record};

fuzz_target!(|bytes: &[u8]| {
    // As records, without the checksums that keep a fuzzer out.
    let mut rest = bytes;
    while let Some(record) = Record::decode(&mut rest) {
        let mut again = Vec::new();
        record.encode(&mut again);
        assert_eq!(Record::decode(&mut &again[..]), Some(record));
    }
    // As a file.
    let here = Head {
        boot: 1,
        netns: 1,
        netns_cookie: None,
    };
    let frames = || Frames::open(bytes).expect("bytes can be read");
    let Ok(checked) = frames() else {
        return;
    };
    if state::check(checked, &here).expect("bytes can be read").is_ok() {
        let again = frames().expect("it began well before");
        state::replay(again, &mut |_| {}, &mut |_, _, _| {}).expect("it was checked");
    }
});

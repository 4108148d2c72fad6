use proptest::prelude::*;

use super::build::{self, A, AAAA, Record, address, cname, response};
use super::*;

fn read(bytes: &[u8]) -> Result<Option<Answer>, Malformed> {
    Message::read(bytes)?.answer(true)
}

fn texts(answer: &Answer) -> Vec<&str> {
    answer.names.iter().map(Name::as_str).collect()
}

#[test]
fn a_chain_is_followed_in_whatever_order_its_records_are() {
    let records = [
        address("c.example", 300, "192.0.2.1"),
        cname("B.example", 30, "c.EXAMPLE"),
        address("c.example", 20, "192.0.2.2"),
        cname("a.example", 600, "b.example"),
    ];
    let answer = read(&response(1, "A.Example", A, &records))
        .unwrap()
        .unwrap();
    assert_eq!(texts(&answer), ["a.example", "b.example", "c.example"]);
    let found: Vec<_> = answer
        .addresses
        .iter()
        .map(|found| (found.ip.to_string(), found.ttl))
        .collect();
    assert_eq!(
        found,
        [("192.0.2.1".to_string(), 30), ("192.0.2.2".to_string(), 20)]
    );
}

#[test]
fn what_the_chain_does_not_lead_to_is_ignored() {
    let records = [
        address("bank.example", 300, "192.0.2.66"),
        cname("other.example", 300, "a.example"),
        address("a.example", 300, "192.0.2.1"),
        address("a.example", 300, "2001:db8::1"),
    ];
    let answer = read(&response(1, "a.example", A, &records))
        .unwrap()
        .unwrap();
    assert_eq!(texts(&answer), ["a.example"]);
    assert_eq!(answer.addresses.len(), 1, "{answer:?}");
    let answer = read(&response(1, "a.example", AAAA, &records)).unwrap();
    assert_eq!(answer.unwrap().addresses[0].ip.to_string(), "2001:db8::1");
    assert_eq!(read(&response(1, "b.example", A, &records)), Ok(None));
    // HTTPS: no hints.
    assert_eq!(read(&response(1, "a.example", 65, &records)), Ok(None));
}

#[test]
fn a_loop_of_cnames_ends() {
    let records = [
        cname("a.example", 300, "b.example"),
        cname("b.example", 300, "a.example"),
        address("a.example", 300, "192.0.2.1"),
    ];
    let bytes = response(1, "a.example", A, &records);
    assert_eq!(read(&bytes), Err(Malformed::Chain));
    let mut long: Vec<Record> = (0..CHAIN - 1)
        .map(|n| cname(&format!("n{n}"), 60, &format!("n{}", n + 1)))
        .collect();
    long.push(address(&format!("n{}", CHAIN - 1), 60, "192.0.2.1"));
    let answer = read(&response(1, "n0", A, &long)).unwrap().unwrap();
    assert_eq!(answer.names.len(), CHAIN);
    long.insert(0, cname("before", 60, "n0"));
    assert_eq!(
        read(&response(1, "before", A, &long)),
        Err(Malformed::Chain)
    );
}

#[test]
fn a_dname_counts_by_the_cname_made_of_it() {
    let dname = Record {
        owner: build::name("old.example"),
        kind: 39,
        ttl: 300,
        data: build::name("new.example"),
    };
    let records = [
        dname,
        cname("a.old.example", 0, "a.new.example"),
        address("a.new.example", 300, "192.0.2.1"),
    ];
    let answer = read(&response(1, "a.old.example", A, &records))
        .unwrap()
        .unwrap();
    assert_eq!(texts(&answer), ["a.old.example", "a.new.example"]);
    assert_eq!(answer.addresses[0].ttl, 0);
}

#[test]
fn errors_other_opcodes_and_other_classes_say_nothing() {
    let records = [address("a.example", 300, "192.0.2.1")];
    let good = response(1, "a.example", A, &records);
    for rcode in 1..16 {
        let mut bytes = good.clone();
        bytes[3] |= rcode;
        assert_eq!(read(&bytes), Ok(None));
    }
    let mut update = good.clone();
    update[2] |= 5 << 3;
    assert!(!Message::read(&update).unwrap().is_about_a_name());
    let mut chaos = good.clone();
    let class = build::head(0, 0, "a.example", A, 0).len() - 1;
    chaos[class] = 3;
    assert!(!Message::read(&chaos).unwrap().is_about_a_name());
    let mut chaos = good.clone();
    let class = good.len() - 11;
    chaos[class] = 3;
    assert_eq!(read(&chaos), Ok(None));
    for count in [0, 2] {
        let mut bytes = good.clone();
        bytes[5] = count;
        assert_eq!(read(&bytes), Err(Malformed::Questions));
    }
}

#[test]
fn a_ttl_with_the_highest_bit_is_none() {
    let records = [
        address("a", u32::MAX, "192.0.2.1"),
        address("a", 1 << 30, "192.0.2.2"),
    ];
    let answer = read(&response(1, "a", A, &records)).unwrap().unwrap();
    assert_eq!(
        (answer.addresses[0].ttl, answer.addresses[1].ttl),
        (0, 1 << 30)
    );
}

#[test]
fn of_a_truncated_answer_what_is_there_counts() {
    let records = [
        address("a", 300, "192.0.2.1"),
        address("a", 300, "192.0.2.2"),
    ];
    let bytes = response(1, "a", A, &records);
    let cut = &bytes[..bytes.len() - 1];
    assert_eq!(read(cut), Err(Malformed::Record));
    let first = Message::read(cut).unwrap().answer(false).unwrap().unwrap();
    assert_eq!(first.addresses.len(), 1);
    let mut truncated = cut.to_vec();
    truncated[2] |= 2;
    assert_eq!(read(&truncated), Ok(Some(first)));
}

#[test]
fn names_with_anything_in_them_are_escaped() {
    let odd = [3, b'a', b'.', b'B', 5, b'\x1b', b'[', b'2', b'J', 0xff, 0];
    let mut bytes = build::head(1, 0x8180, "", A, 1);
    bytes.splice(12..13, odd);
    bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1]);
    let answer = read(&bytes).unwrap().unwrap();
    assert_eq!(texts(&answer), ["a\\046b.\\027\\0912j\\255"]);
}

#[test]
fn questions_differ_by_name_and_type_but_not_by_case() {
    let hash = |name: &str, kind| {
        let bytes = build::query(1, name, kind);
        let mut hasher = std::hash::DefaultHasher::new();
        Message::read(&bytes).unwrap().hash_question(&mut hasher);
        hasher.finish()
    };
    assert_eq!(hash("wWw.eXample", A), hash("www.example", A));
    assert_ne!(hash("www.example", A), hash("www.example", AAAA));
    assert_ne!(hash("ww.wexample", A), hash("www.example", A));
}

#[test]
fn pointers_that_loop_end() {
    // The question points to itself; a record points to the record before it.
    let mut bytes = build::head(1, 0x8180, "", A, 0);
    bytes.splice(12..13, [0xc0, 12]);
    assert!(Message::read(&bytes).is_err());
    let mut bytes = build::head(1, 0x8180, "a", A, 1);
    let at = bytes.len() as u8;
    bytes.extend([0xc0, at, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1]);
    assert_eq!(read(&bytes), Err(Malformed::Record));
}

/// The counts claim what is not there.
#[test]
fn huge_counts_are_only_numbers() {
    let mut bytes = response(1, "a", A, &[address("a", 300, "192.0.2.1")]);
    bytes[6..8].fill(0xff);
    assert_eq!(read(&bytes), Err(Malformed::Record));
    let many: Vec<Record> = (0..5000).map(|_| address("a", 9, "192.0.2.1")).collect();
    let answer = read(&response(1, "a", A, &many)).unwrap().unwrap();
    assert_eq!(answer.addresses.len(), RECORDS);
}

fn looks_like_dns() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => prop::sample::select(vec![0u8, 1, 2, 4, 5, 12, 28, 0xc0, 0xff, b'a']),
        1 => any::<u8>(),
    ];
    (prop::collection::vec(byte, 0..200), any::<u16>(), 0u8..3).prop_map(|(rest, id, count)| {
        let mut bytes = build::head(id, 0x8180, "a.b", A, count.into());
        bytes.extend(rest);
        bytes
    })
}

proptest! {
    /// Any bytes: no panic, and no answer beyond its bounds.
    #[test]
    fn nothing_panics(bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..300), looks_like_dns()], whole: bool) {
        if let Ok(message) = Message::read(&bytes) {
            let mut hasher = std::hash::DefaultHasher::new();
            message.hash_question(&mut hasher);
            if let Ok(Some(answer)) = message.answer(whole) {
                prop_assert!(!answer.addresses.is_empty() && answer.addresses.len() <= RECORDS);
                prop_assert!(!answer.names.is_empty() && answer.names.len() <= CHAIN);
            }
        }
    }

    /// What was cut off is less, never something else.
    #[test]
    fn a_prefix_says_less(cut in 0usize..200) {
        let records = [cname("a", 9, "b"), address("b", 9, "192.0.2.1"), address("b", 9, "192.0.2.2")];
        let bytes = response(1, "a", A, &records);
        let all = read(&bytes).unwrap().unwrap();
        let cut = &bytes[..cut.min(bytes.len())];
        if let Ok(message) = Message::read(cut)
            && let Some(part) = message.answer(false).unwrap()
        {
            prop_assert_eq!(&part.names, &all.names);
            prop_assert!(all.addresses.starts_with(&part.addresses));
        }
    }
}

//! What an entry keeps, and in how little room.

use super::*;

fn id(family: Family, local: &str, remote: &str) -> SockId {
    SockId::from_wire(
        Proto::Udp,
        family,
        (local.parse().unwrap(), 5),
        (remote.parse().unwrap(), 53),
        3,
    )
}

#[test]
fn packing_loses_nothing() {
    for id in [
        id(Family::V4, "10.0.0.1", "10.0.0.2"),
        id(Family::V6, "2001:db8::1", "fe80::1"),
        id(Family::V6, "::ffff:10.0.0.1", "::ffff:10.0.0.2"),
        id(Family::V6, "::", "::"),
    ] {
        let key = SocketKey::new(Netns(4_026_531_833), Cookie(u64::MAX));
        let entry = Entry::new(
            key,
            id,
            TcpState::Close,
            Owner::Unknown(OwnerUnknown::NoFile),
            9,
        );
        assert_eq!(entry.id(), id);
        assert_eq!(entry.key(), key);
        assert_eq!(entry.owner(), Owner::Unknown(OwnerUnknown::NoFile));
    }
}

#[test]
fn flags_do_not_touch_each_other() {
    let key = SocketKey::new(Netns(1), Cookie(1));
    let first = id(Family::V6, "::ffff:10.0.0.1", "::ffff:10.0.0.2");
    let owner = Owner::Unknown(OwnerUnknown::NotRead);
    let mut entry = Entry::new(key, first, TcpState::Close, owner, 0);
    let marks = [
        Mark::Staged,
        Mark::Changing,
        Mark::Missed,
        Mark::Suspected,
        Mark::Unaskable,
        Mark::Hooked,
    ];
    for mark in marks {
        assert!(!entry.is(mark));
        entry.note(mark, true);
    }
    for why in [OwnerUnknown::NoFile, OwnerUnknown::Minisocket] {
        entry.set_owner(Owner::Unknown(why));
        for direction in [Direction::Unknown, Direction::Inbound, Direction::Outbound] {
            entry.set_direction(direction);
            assert_eq!(entry.direction(), Some(direction));
            assert_eq!(entry.owner(), Owner::Unknown(why));
            assert_eq!(entry.id(), first);
            assert!(marks.iter().all(|mark| entry.is(*mark)));
        }
    }
    entry.note(Mark::Staged, false);
    entry.rebind(id(Family::V4, "10.0.0.1", "10.0.0.3"), 5);
    assert_eq!((entry.direction(), entry.process()), (None, None));
    assert!(!entry.is(Mark::Staged) && !entry.is(Mark::Hooked));
    assert!(entry.is(Mark::Missed) && entry.is(Mark::Unaskable));
    assert_eq!(
        entry.owner(),
        Owner::Unknown(OwnerUnknown::Minisocket),
        "the socket is the same"
    );
}

#[test]
fn an_entry_is_about_a_hundred_bytes() {
    assert!(size_of::<Entry>() <= 104, "{}", size_of::<Entry>());
}

#[test]
fn no_name_is_final_for_the_sensor_that_gave_up() {
    let key = SocketKey::new(Netns(1), Cookie(1));
    let id = id(Family::V4, "10.0.0.1", "10.0.0.2");
    let owner = Owner::Known { uid: 0, inode: 7 };
    let mut entry = Entry::new(key, id, TcpState::Established, owner, 0);
    let (hasty, patient) = (SensorIx(0), SensorIx(1));
    entry.set_host(hasty, Host::Unknown(HostUnknown::TimedOut));
    assert_eq!(entry.host(patient), Host::Unasked, "it has not asked yet");
    entry.set_host(patient, Host::Named(Name::escaped(b"a.example")));
    assert_eq!(entry.host(hasty), Host::Unknown(HostUnknown::TimedOut));
    assert_eq!(entry.host(patient).as_str(), "a.example");
    entry.set_owner(Owner::Unknown(OwnerUnknown::NoFile));
    assert_eq!(entry.owner(), owner, "an owner once known is kept");
}

//! State files that cannot be used, and directories that cannot be had.

use std::path::Path;

use crate::daemon::{Launch, Scratch, Tick};
use crate::netns;
use crate::sock::{Domain, Sock};

/// A run that leaves a state file, in which one listener is open.
fn leave(place: &Scratch, listener: &Sock) -> Vec<u8> {
    let daemon = Launch::new(Tick::Fast).at(place).start();
    drop(daemon.stop());
    let file = place.path().join("state/state");
    let bytes = std::fs::read(file).expect("a state file");
    let cookie = listener.cookie.to_le_bytes();
    assert!(bytes.windows(8).any(|window| window == cookie));
    bytes
}

fn begins_afresh(place: &Scratch, why: &str) {
    let daemon = Launch::new(Tick::Fast).at(place).start();
    let line = daemon.wait_for_line("the warning", |line| line.contains("cannot be used"));
    let name = format!("state.{why}");
    assert!(line.contains(&name), "{line}");
    assert!(place.path().join("state").join(&name).exists());
    daemon.ticks(1);
    let record = daemon.stop();
    assert_eq!(record.events().count(), 0, "what is open enters silently");
}

#[test]
fn damaged_files() {
    netns::run("restart::aside::damaged_files", || {
        let place = Scratch::new();
        let listener = Sock::listener(Domain::V4);
        let good = leave(&place, &listener);
        let file = place.path().join("state/state");
        let flipped = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            bytes
        };
        for (bytes, why) in [
            (good[..good.len() / 2].to_vec(), "truncated"),
            (Vec::new(), "truncated"),
            (flipped(good.len() - 3), "corrupt"),
            (flipped(0), "corrupt"),
            (vec![0; 4096], "corrupt"),
            (flipped(8), "version"),
        ] {
            std::fs::write(&file, bytes).expect("a scratch file");
            begins_afresh(&place, why);
        }
    });
}

/// The id of the boot stands in the file's first frame; another one is one that
/// is long over.
#[test]
fn another_boot() {
    netns::run("restart::aside::another_boot", || {
        let place = Scratch::new();
        let listener = Sock::listener(Domain::V4);
        let mut bytes = leave(&place, &listener);
        // Magic and version, the frame's length and checksum, the record's tag.
        let (prefix, boot) = (12, 12 + 8 + 1);
        bytes[boot] ^= 1;
        let length = u32::from_le_bytes(bytes[prefix..prefix + 4].try_into().unwrap()) as usize;
        let frame = &bytes[prefix + 8..prefix + 8 + length];
        let crc = crc32(frame).to_le_bytes();
        bytes[prefix + 4..prefix + 8].copy_from_slice(&crc);
        std::fs::write(place.path().join("state/state"), bytes).expect("a scratch file");
        begins_afresh(&place, "boot");
    });
}

/// CRC-32 (IEEE 802.3), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), step)
    })
}

#[test]
fn another_namespace() {
    netns::run("restart::aside::another_namespace", || {
        let place = Scratch::new();
        let listener = Sock::listener(Domain::V4);
        leave(&place, &listener);
        // SAFETY: unshare(2) takes no pointers; this thread goes to a namespace of
        // its own, and the daemon that it starts with it.
        netns::check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).expect("a namespace");
        netns::loopback_up().expect("lo of a new namespace");
        begins_afresh(&place, "namespace");
    });
}

#[test]
fn one_directory_for_two() {
    netns::run("restart::aside::one_directory_for_two", || {
        let place = Scratch::new();
        let first = Launch::new(Tick::Fast).at(&place).start();
        let (status, second) = Launch::new(Tick::Fast).at(&place).spawn().end();
        assert_eq!(status.code(), Some(1));
        assert!(
            second.log.contains("another sockwatch keeps its state in"),
            "{}",
            second.log
        );
        drop(first.kill());
        drop(Launch::new(Tick::Fast).at(&place).start().stop());
    });
}

#[test]
fn a_directory_that_is_not_to_be_had() {
    netns::run("restart::aside::a_directory_that_is_not_to_be_had", || {
        let place = Scratch::new();
        place.write("state", "a file");
        let (status, record) = Launch::new(Tick::Fast).at(&place).spawn().end();
        assert_eq!(status.code(), Some(1));
        assert!(record.log.contains("cannot lock"), "{}", record.log);
    });
}

/// The medium is full: events go on, the failure is told, and memory comes back
/// with the room.
#[test]
fn a_full_medium() {
    netns::Sandbox::default()
        .mounts()
        .run("restart::aside::a_full_medium", || {
            let place = Scratch::new();
            let dir = place.path().join("state");
            std::fs::create_dir(&dir).expect("a directory");
            netns::mount_small(&dir, 256 << 10).expect("a tmpfs");
            let filler = dir.join("filler");
            let daemon = Launch::new(Tick::Fast).at(&place).start();
            fill(&filler);
            let sockets: Vec<_> = (0..200).map(|_| Sock::listener(Domain::V4)).collect();
            let cookies: Vec<u64> = sockets.iter().map(|one| one.cookie).collect();
            daemon.opened(&cookies);
            daemon.wait_for_line("the failure", |line| {
                line.contains("cannot write the state")
            });
            std::fs::remove_file(&filler).expect("the filler can go");
            drop(daemon.stop());
            drop(sockets);
            let second = Launch::new(Tick::Fast).at(&place).start();
            second.closed(&cookies);
            let record = second.stop();
            assert!(record.log.contains("ended well"), "{}", record.log);
        });
}

fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).expect("a file");
    for size in [4096, 1] {
        while file.write(&vec![1; size]).is_ok_and(|written| written > 0) {}
    }
}

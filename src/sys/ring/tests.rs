//! The reader, on a ring whose writer is the test: a file laid out like one.

use std::fs::File;
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;

use super::*;

const BYTES: usize = 1 << 16;

struct Writer {
    file: File,
    position: usize,
}

impl Writer {
    fn new() -> (Writer, Ring) {
        // SAFETY: the name is a C string; memfd_create(2) reads no other memory.
        let fd = unsafe { libc::memfd_create(c"ring".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: `fd` was just opened here and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let file = File::from(fd.try_clone().unwrap());
        file.set_len((2 * page() + 2 * BYTES) as u64).unwrap();
        let ring = Ring::new(fd, BYTES).unwrap();
        (Writer { file, position: 0 }, ring)
    }

    /// The data is there twice in a row.
    fn put(&self, at: usize, bytes: &[u8]) {
        for (number, byte) in bytes.iter().enumerate() {
            let place = (at + number) % BYTES;
            for copy in [place, place + BYTES] {
                let at = 2 * page() + copy;
                self.file.write_all_at(&[*byte], at as u64).unwrap();
            }
        }
    }

    /// Takes the place of a record; where it is.
    fn begin(&mut self, bytes: &[u8]) -> usize {
        let at = self.position;
        self.put(at, &(bytes.len() as u32 | BUSY).to_ne_bytes());
        self.put(at + HEADER, bytes);
        self.position += (HEADER + bytes.len()).next_multiple_of(8);
        let position = self.position.to_ne_bytes();
        self.file.write_all_at(&position, page() as u64).unwrap();
        at
    }

    fn finish(&self, at: usize, bytes: &[u8], flags: u32) {
        self.put(at, &(bytes.len() as u32 | flags).to_ne_bytes());
    }

    fn write(&mut self, bytes: &[u8]) {
        let at = self.begin(bytes);
        self.finish(at, bytes, 0);
    }
}

fn next(ring: &mut Ring) -> Option<Vec<u8>> {
    ring.next(<[u8]>::to_vec).unwrap()
}

/// Whoever only knows that nothing more can be read does not know that all was.
#[test]
fn a_mark_is_passed_when_all_before_it_is_finished_and_read() {
    let (mut writer, mut ring) = Writer::new();
    assert!(ring.has_passed(ring.mark()) && !ring.blocked());
    let slow = writer.begin(b"slow");
    writer.write(b"behind it");
    let mark = ring.mark();
    assert_eq!(next(&mut ring), None);
    assert!(!ring.has_passed(mark) && ring.blocked());
    writer.finish(slow, b"slow", 0);
    writer.write(b"after the mark");
    assert_eq!(next(&mut ring), Some(b"slow".to_vec()));
    assert!(!ring.has_passed(mark));
    assert_eq!(next(&mut ring), Some(b"behind it".to_vec()));
    assert!(ring.has_passed(mark) && !ring.has_passed(ring.mark()));
    assert_eq!(next(&mut ring), Some(b"after the mark".to_vec()));
    assert_eq!(next(&mut ring), None);
    assert!(!ring.blocked());
}

#[test]
fn what_was_given_up_is_passed_over() {
    let (mut writer, mut ring) = Writer::new();
    let given_up = writer.begin(b"no");
    let mark = ring.mark();
    writer.finish(given_up, b"no", DISCARD);
    assert_eq!(next(&mut ring), None);
    assert!(ring.has_passed(mark) && !ring.blocked());
}

/// Through the window, around the end, and past the length of the ring.
#[test]
fn records_come_whole_and_in_order() {
    let (mut writer, mut ring) = Writer::new();
    for round in 0..2_500_u32 {
        let record = [round.to_ne_bytes(); 22].concat();
        writer.write(&record);
        if round % 3 == 2 {
            for back in [2, 1, 0] {
                let expected = [(round - back).to_ne_bytes(); 22].concat();
                assert_eq!(next(&mut ring), Some(expected));
            }
            assert_eq!(next(&mut ring), None);
        }
    }
    assert!(ring.position() > 3 * BYTES);
}

/// `as usize` is what a process of 32 bits sees of a kernel's 64.
#[test]
fn the_writer_is_ahead_across_every_boundary() {
    for from in [0, 88, (1 << 32) - 8, 1 << 32, (1 << 33) - 96, u64::MAX - 7] {
        for by in [0, 8, 96, 4 << 20, (1 << 31) - 8] {
            let written = from.wrapping_add(by);
            assert_eq!(ahead(from, written as usize), written);
        }
    }
}

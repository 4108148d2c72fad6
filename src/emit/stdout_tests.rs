use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Read, Seek, SeekFrom, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use super::*;
use crate::emit::{Fan, Json};
use crate::model::{Data, Degraded, Listener};
use crate::stats::Stats;
use crate::sys::output::{Refused, is_nonblocking};

fn event(seq: u64, data: Data) -> Event {
    Event {
        ts: SystemTime::UNIX_EPOCH,
        seq,
        eid: String::new(),
        sensor: Arc::from("s"),
        listener: Listener::Own,
        tag: None,
        data,
    }
}

/// An event of about a hundred bytes, or of `padding` more.
fn plain(seq: u64, padding: usize) -> Event {
    let reason = "x".repeat(padding);
    event(
        seq,
        Data::Degraded(Degraded {
            source: "udp",
            missing: Vec::new(),
            reason,
            cost: String::new(),
        }),
    )
}

fn sink(fd: &impl AsFd, limit: usize) -> Stdout {
    let output = Output::over(fd.as_fd(), Refused::Lend).unwrap();
    Stdout::over(output, Renderer::Json(Json::new("h")), limit)
}

fn piped(limit: usize) -> (PipeReader, OwnedFd, Stdout) {
    let (reader, writer) = pipe().unwrap();
    let stdout = sink(&writer, limit);
    (reader, writer.into(), stdout)
}

/// The seq of each line; every line must be whole.
fn seqs(bytes: &[u8]) -> Vec<u64> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            value["seq"].as_u64().unwrap()
        })
        .collect()
}

/// Offers events until the sink is blocked and full; the next seq.
fn stuff(stdout: &mut Stdout, mut seq: u64) -> u64 {
    while stdout.offer(&plain(seq, 0)) == Delivery::Delivered {
        seq += 1;
        stdout.flush().unwrap();
    }
    seq
}

/// Reads and flushes in turn until all is written and read.
fn drain(mut reader: PipeReader, stdout: &mut Stdout, seen: &mut Vec<u8>) -> PipeReader {
    let mut page = [0; 4096];
    while stdout.flush().unwrap() != Flush::Drained {
        let count = reader.read(&mut page).unwrap();
        seen.extend_from_slice(&page[..count]);
    }
    reader
}

#[test]
fn a_blocked_pipe_drains_in_order_and_partial_lines_are_finished() {
    let (reader, shared, mut stdout) = piped(10_000);
    let mut offered = 0;
    // Lines longer than a page, so that writes end in the middle of them.
    while offered < 200 {
        assert_eq!(stdout.offer(&plain(offered, 5000)), Delivery::Delivered);
        offered += 1;
        stdout.flush().unwrap();
    }
    assert_eq!(stdout.flush().unwrap(), Flush::Blocked);
    assert!(stdout.source().is_some());
    assert!(!is_nonblocking(&shared));
    let mut seen = Vec::new();
    let mut reader = drain(reader, &mut stdout, &mut seen);
    drop((stdout, shared));
    reader.read_to_end(&mut seen).unwrap();
    assert_eq!(seqs(&seen), Vec::from_iter(0..offered));
}

#[test]
fn a_turn_with_more_events_than_room_loses_none_to_a_reader_that_keeps_up() {
    let null = OpenOptions::new().write(true).open("/dev/null").unwrap();
    let mut stdout = sink(&null, 8);
    for seq in 1..=1000 {
        assert_eq!(stdout.offer(&plain(seq, 0)), Delivery::Delivered);
    }
    assert_eq!(stdout.flush().unwrap(), Flush::Drained);
}

#[test]
fn one_turn_is_one_write() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut stdout = sink(&near, 100);
    for seq in 0..50 {
        assert_eq!(stdout.offer(&plain(seq, 0)), Delivery::Delivered);
    }
    far.set_nonblocking(true).unwrap();
    let mut page = vec![0; 1 << 20];
    assert!(far.read(&mut page).is_err(), "nothing before the flush");
    assert_eq!(stdout.flush().unwrap(), Flush::Drained);
    let count = far.read(&mut page).unwrap();
    assert_eq!(seqs(&page[..count]), Vec::from_iter(0..50));
}

#[test]
fn a_loss_is_told_in_its_place_and_once() {
    let (reader, shared, mut stdout) = piped(100);
    let first_lost = stuff(&mut stdout, 0);
    for seq in first_lost + 1..first_lost + 10 {
        assert_eq!(stdout.offer(&plain(seq, 0)), Delivery::Dropped);
    }
    assert_eq!(stdout.loss(), None, "still full");
    let mut seen = Vec::new();
    let mut reader = drain(reader, &mut stdout, &mut seen);
    let next = first_lost + 10;
    assert_eq!(
        stdout.offer(&plain(next, 0)),
        Delivery::Dropped,
        "nothing overtakes the gap record"
    );
    let loss = stdout.loss().unwrap();
    assert_eq!((&*loss.sink, loss.lost), ("stdout", 11));
    assert_eq!(stdout.loss(), None);
    let gap = event(next + 1, Data::Gap(loss.gap()));
    assert_eq!(stdout.offer(&gap), Delivery::Delivered);
    assert_eq!(stdout.offer(&plain(next + 2, 0)), Delivery::Delivered);
    assert_eq!(stdout.flush().unwrap(), Flush::Drained);
    drop((stdout, shared));
    reader.read_to_end(&mut seen).unwrap();
    let expected = (0..first_lost).chain([next + 1, next + 2]);
    assert_eq!(seqs(&seen), Vec::from_iter(expected));
}

#[test]
fn room_for_the_gap_comes_below_half() {
    let (mut reader, _shared, mut stdout) = piped(1000);
    stuff(&mut stdout, 0);
    let mut page = [0; 4096];
    loop {
        reader.read_exact(&mut page).unwrap();
        stdout.flush().unwrap();
        let told = stdout.loss().is_some();
        assert_eq!(
            told,
            stdout.backlog.lines() < 500,
            "{}",
            stdout.backlog.lines()
        );
        if told {
            return;
        }
    }
}

#[test]
fn the_smallest_queue_takes_the_gap_and_an_event() {
    let (reader, _shared, mut stdout) = piped(0);
    stuff(&mut stdout, 0);
    let _reader = drain(reader, &mut stdout, &mut Vec::new());
    let gap = event(1, Data::Gap(stdout.loss().unwrap().gap()));
    assert_eq!(stdout.offer(&gap), Delivery::Delivered);
    assert_eq!(stdout.offer(&plain(2, 0)), Delivery::Delivered);
}

#[test]
fn a_reader_that_is_gone_closes() {
    let (reader, _shared, mut stdout) = piped(10);
    drop(reader);
    assert_eq!(stdout.flush().unwrap(), Flush::Drained);
    stdout.offer(&plain(0, 0));
    assert!(matches!(stdout.flush(), Err(OutputError::Closed)));

    let (near, far) = UnixStream::pair().unwrap();
    let mut stdout = sink(&near, 10);
    drop(far);
    stdout.offer(&plain(0, 0));
    assert!(matches!(stdout.flush(), Err(OutputError::Closed)));
}

#[test]
fn a_full_disk_is_waited_out() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut stdout = sink(&full, 3);
    for seq in 0..3 {
        assert_eq!(stdout.offer(&plain(seq, 0)), Delivery::Delivered);
        assert_eq!(stdout.flush().unwrap(), Flush::Retry);
    }
    assert_eq!(stdout.offer(&plain(3, 0)), Delivery::Dropped);
    assert_eq!(stdout.source(), None);
    // Half a line was written before the disk was full; now there is room.
    let half = stdout.backlog.queue().front()[..7].to_vec();
    stdout.backlog.queue().consume(half.len());
    let mut file = scratch();
    file.write_all(&half).unwrap();
    stdout.output = Output::over(file.as_fd(), Refused::Lend).unwrap();
    assert_eq!(stdout.flush().unwrap(), Flush::Drained);
    assert_eq!(stdout.backlog.refusals(), 0);
    assert_eq!(stdout.loss().unwrap().lost, 1);
    assert_eq!(seqs(&content(&mut file)), [0, 1, 2]);
}

#[test]
fn a_file_gets_everything() {
    let mut file = scratch();
    let mut stdout = sink(&file, 20_000);
    for seq in 0..20_000 {
        assert_eq!(stdout.offer(&plain(seq, 0)), Delivery::Delivered);
    }
    assert_eq!(stdout.flush().unwrap(), Flush::Drained);
    assert!(stdout.backlog.queue().held() < 16 * 1024);
    assert_eq!(seqs(&content(&mut file)), Vec::from_iter(0..20_000));
}

#[test]
fn errors_have_their_fates() {
    let of = |code, kind| fate(&io::Error::from_raw_os_error(code), kind);
    assert_eq!(of(libc::ENOSPC, Kind::File), Fate::Passing);
    assert_eq!(of(libc::EIO, Kind::Terminal), Fate::Closed);
    assert_eq!(of(libc::EIO, Kind::File), Fate::Fatal);
    assert_eq!(of(libc::EAGAIN, Kind::Pipe), Fate::Blocked);
}

/// A sink that answers as it is told, and keeps what it took.
struct Scripted(Delivery, Rc<RefCell<Vec<u64>>>);

impl Sink for Scripted {
    fn offer(&mut self, event: &Event) -> Delivery {
        if self.0 == Delivery::Delivered {
            self.1.borrow_mut().push(event.seq);
        }
        self.0
    }
    fn loss(&mut self) -> Option<Loss> {
        None
    }
}

#[test]
fn a_fan_tells_whether_anybody_took_it() {
    let (stats, taken) = (Rc::new(Stats::default()), Rc::default());
    let mut fan = Fan::new(Rc::clone(&stats));
    assert!(!fan.emit(&plain(0, 0)), "no sink at all");
    fan.add(Scripted(Delivery::Dropped, Rc::clone(&taken)));
    assert!(!fan.emit(&plain(1, 0)));
    fan.add(Scripted(Delivery::Delivered, Rc::clone(&taken)));
    assert!(fan.emit(&plain(2, 0)));
    assert_eq!(*taken.borrow(), [2]);
    assert_eq!(stats.events_dropped.count(), 2);
    assert_eq!(fan.loss(), None);
    assert_eq!(fan.flush().unwrap(), Flush::Drained);
}

#[test]
fn a_fan_flushes_the_others_when_one_fails() {
    let mut fan = Fan::new(Rc::default());
    let (gone, _first, failing) = piped(10);
    drop(gone);
    let (mut reader, _second, working) = piped(10);
    fan.add(failing);
    fan.add(working);
    assert!(fan.emit(&plain(7, 0)));
    assert!(matches!(fan.flush(), Err(OutputError::Closed)));
    let mut page = [0; 4096];
    let count = reader.read(&mut page).unwrap();
    assert_eq!(seqs(&page[..count]), [7]);
    assert_eq!(fan.sources().count(), 2);
}

/// A file that is gone when it is closed.
fn scratch() -> File {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("sockwatch-{}-{number}", std::process::id()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

fn content(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

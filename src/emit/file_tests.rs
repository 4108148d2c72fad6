use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::SystemTime;

use super::*;
use crate::emit::Json;
use crate::model::{Data, Degraded, Listener};

/// A directory that is gone when this is dropped.
struct Dir(PathBuf);

impl Dir {
    fn new(test: &str) -> Dir {
        let name = format!("sockwatch-file-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Dir(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn event(seq: u64) -> Event {
    Event {
        ts: SystemTime::UNIX_EPOCH,
        seq,
        eid: String::new(),
        sensor: Arc::from("s"),
        listener: Listener::Own,
        tag: None,
        data: Data::Degraded(Degraded {
            source: "udp",
            missing: Vec::new(),
            reason: String::new(),
            cost: String::new(),
        }),
    }
}

fn sink(path: &Path, limit: usize, reopen: &Reopen) -> File {
    let renderer = Renderer::Json(Json::new("h"));
    File::open("handlers.a".into(), path, renderer, limit, reopen.clone()).unwrap()
}

fn seqs(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .map(|value| value["seq"].as_u64().unwrap())
        .collect()
}

fn offer(file: &mut File, seqs: std::ops::Range<u64>) {
    for seq in seqs {
        assert_eq!(file.offer(&event(seq)), Delivery::Delivered);
    }
}

#[test]
fn lines_are_appended_and_a_torn_one_is_ended() {
    let dir = Dir::new("append");
    let path = dir.path("events");
    fs::write(&path, "{\"seq\":1}\n{\"se").unwrap();
    let mut file = sink(&path, 100, &Reopen::default());
    offer(&mut file, 2..5);
    assert_eq!(file.flush().unwrap(), Flush::Drained);
    assert_eq!(seqs(&path), [1, 2, 3, 4]);
    let lines = fs::read_to_string(&path).unwrap();
    assert_eq!(lines.lines().nth(1), Some("{\"se"));
    let fresh = sink(&dir.path("fresh"), 100, &Reopen::default());
    let mode = fresh.file.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0);
}

#[test]
fn a_renamed_file_is_left_and_none_is_lost_or_doubled() {
    let dir = Dir::new("rotate");
    let (path, old) = (dir.path("events"), dir.path("events.1"));
    let reopen = Reopen::default();
    let mut file = sink(&path, 100, &reopen);
    offer(&mut file, 0..3);
    file.flush().unwrap();
    fs::rename(&path, &old).unwrap();
    offer(&mut file, 3..5);
    file.flush().unwrap();
    reopen.wanted();
    offer(&mut file, 5..8);
    file.flush().unwrap();
    assert_eq!(seqs(&old), [0, 1, 2, 3, 4]);
    assert_eq!(seqs(&path), [5, 6, 7]);
    // A name that cannot be opened: the old file goes on.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    reopen.wanted();
    offer(&mut file, 8..9);
    file.flush().unwrap();
    assert_eq!(file.file.metadata().unwrap().nlink(), 0);
    assert!(file.file.metadata().unwrap().len() > 0);
}

#[test]
fn half_a_line_is_taken_back_unless_somebody_wrote_behind_it() {
    let dir = Dir::new("half");
    let path = dir.path("events");
    let reopen = Reopen::default();
    let mut file = sink(&path, 100, &reopen);
    offer(&mut file, 0..2);
    // A disk that is full after the first line and seven bytes.
    let room = file.backlog.queue().front().len() / 2 + 7;
    let count = write(&file.file, &file.backlog.queue().front()[..room]).unwrap();
    file.backlog.queue().consume(count);
    file.take_back();
    assert_eq!(seqs(&path), [0]);
    assert_eq!(file.flush().unwrap(), Flush::Drained);
    assert_eq!(seqs(&path), [0, 1]);

    offer(&mut file, 2..3);
    let half = file.backlog.queue().front()[..9].to_vec();
    file.backlog
        .queue()
        .consume(write(&file.file, &half).unwrap());
    fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"x")
        .unwrap();
    let before = fs::metadata(&path).unwrap().len();
    file.take_back();
    assert_eq!(fs::metadata(&path).unwrap().len(), before);
    assert_eq!(file.backlog.begun(), 9, "the rest follows");
    // Another file gets the line from its beginning.
    fs::rename(&path, dir.path("old")).unwrap();
    reopen.wanted();
    assert_eq!(file.flush().unwrap(), Flush::Drained);
    assert_eq!(seqs(&path), [2]);
}

#[test]
fn a_full_disk_is_waited_out_and_the_loss_told() {
    let dir = Dir::new("full");
    let path = dir.path("events");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let reopen = Reopen::default();
    let mut file = sink(&path, 3, &reopen);
    offer(&mut file, 0..3);
    assert_eq!(file.flush().unwrap(), Flush::Retry);
    assert_eq!(file.offer(&event(3)), Delivery::Dropped);
    assert_eq!(file.loss(), None);
    fs::remove_file(&path).unwrap();
    reopen.wanted();
    assert_eq!(file.flush().unwrap(), Flush::Drained);
    assert_eq!(file.backlog.refusals(), 0);
    let loss = file.loss().unwrap();
    assert_eq!((&*loss.sink, loss.lost), ("handlers.a", 1));
    assert_eq!(seqs(&path), [0, 1, 2]);
}

#[test]
fn what_is_no_file_is_refused() {
    let dir = Dir::new("kinds");
    let renderer = || Renderer::Json(Json::new("h"));
    let open = |path: &Path| {
        let reopen = Reopen::default();
        File::open("handlers.a".into(), path, renderer(), 9, reopen).map(drop)
    };
    let socket = dir.path("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(open(&socket).is_err());
    assert!(open(&dir.0).is_err());
    assert!(open(&dir.path("none/events")).is_err());
    let (_reader, writer) = io::pipe().unwrap();
    use std::os::fd::AsRawFd;
    let fifo = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let error = open(Path::new(&fifo)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

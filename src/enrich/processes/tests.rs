//! Scans of trees that a test lays out like /proc, and the questions of many
//! askers. The real /proc is scanned in tests/kernel/processes.rs.

mod room;

use super::*;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};

use crate::model::Holders;

const LONG: Duration = Duration::from_secs(60);

const NOBODY: [u32; 0] = [];

/// A tree like /proc.
struct Tree {
    root: PathBuf,
}

impl Tree {
    fn new() -> Tree {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sockwatch-proc-{}-{number}", std::process::id());
        let root = std::env::temp_dir().join(name);
        std::fs::create_dir(&root).unwrap();
        let tree = Tree { root };
        tree.process(1, 0, 1, &[]);
        tree
    }

    fn home(&self, pid: u32) -> PathBuf {
        self.root.join(pid.to_string())
    }

    /// A process with these sockets, at descriptors from 3.
    fn process(&self, pid: u32, parent: u32, started: u64, sockets: &[u32]) {
        let home = self.home(pid);
        std::fs::create_dir_all(home.join("fd")).unwrap();
        let line = format!(
            "{pid} (p{pid}) S {parent} 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 {started} 0"
        );
        std::fs::write(home.join("stat"), line).unwrap();
        std::fs::write(home.join("cmdline"), b"a\0b c\0\0").unwrap();
        symlink(format!("/bin/p{pid}"), home.join("exe")).unwrap();
        symlink("/dev/null", home.join("fd/0")).unwrap();
        for (fd, inode) in (3..).zip(sockets) {
            self.open(pid, fd, *inode);
        }
    }

    fn open(&self, pid: u32, fd: u32, inode: u32) {
        let link = self.home(pid).join(format!("fd/{fd}"));
        symlink(format!("socket:[{inode}]"), link).unwrap();
    }

    fn close(&self, pid: u32, fd: u32) {
        std::fs::remove_file(self.home(pid).join(format!("fd/{fd}"))).unwrap();
    }

    fn end(&self, pid: u32) {
        std::fs::remove_dir_all(self.home(pid)).unwrap();
    }

    fn scanner(&self) -> Scanner {
        Scanner::new(&self.root, true, Passwd::at(&self.root.join("no-passwd")))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.root).unwrap();
    }
}

/// A scanner, its turns and what they cost.
struct Scans {
    scanner: Scanner,
    turn: u64,
    read: u64,
}

impl Scans {
    fn of(tree: &Tree) -> Scans {
        Scans {
            scanner: tree.scanner(),
            turn: 0,
            read: 0,
        }
    }

    /// Asks until there is an answer.
    fn ask(&mut self, inode: u32) -> Attribution {
        let since = self.turn + 1;
        self.read = 0;
        loop {
            self.turn += 1;
            let want = Want {
                inode,
                uid: None,
                since,
            };
            let report = self.scanner.scan(&[want], self.turn, LONG);
            self.read += report.read;
            if let [(of, answer)] = &report.answers[..] {
                assert_eq!(*of, inode);
                return answer.clone();
            }
            assert!(self.turn < since + 10, "no answer in ten turns");
        }
    }

    fn pids(&mut self, inode: u32) -> Vec<u32> {
        match self.ask(inode) {
            Attribution::Held(holders) => {
                assert_eq!(holders.others, 0);
                holders.oldest.iter().map(|process| process.pid).collect()
            }
            Attribution::Unknown(why) => {
                assert_eq!(why, ProcessUnknown::Gone);
                Vec::new()
            }
        }
    }
}

#[test]
fn everything_that_is_told() {
    let tree = Tree::new();
    tree.process(10, 1, 777, &[4711]);
    let Attribution::Held(holders) = Scans::of(&tree).ask(4711) else {
        panic!("it is held");
    };
    let [process] = &holders.oldest[..] else {
        panic!("by one");
    };
    assert_eq!((process.pid, process.started), (10, 777));
    assert_eq!(process.comm.bytes(), b"p10");
    assert_eq!(process.exe.as_deref(), Some("/bin/p10"));
    assert_eq!(process.cmdline.as_deref(), Some("a b c"));
    assert_eq!(process.user, None);
}

#[test]
fn those_that_share_a_socket_oldest_first() {
    let tree = Tree::new();
    tree.process(30, 20, 1, &[7]);
    tree.process(20, 1, 3, &[8, 7, 7]);
    tree.process(10, 20, 2, &[7, 9]);
    let mut scans = Scans::of(&tree);
    assert_eq!(scans.pids(7), [30, 10, 20]);
    assert_eq!(scans.pids(9), [10]);
    for pid in 100..150 {
        tree.process(pid, 1, u64::from(pid), &[7]);
    }
    let Attribution::Held(holders) = scans.ask(7) else {
        panic!("it is held");
    };
    assert_eq!(holders.oldest.len(), Holders::MOST);
    assert_eq!(holders.others, 53 - Holders::MOST as u32);
    assert_eq!(holders.oldest[0].pid, 30);
}

#[test]
fn a_known_process_is_not_read_again_unless_an_inode_is_missing() {
    let tree = Tree::new();
    for pid in 10..60 {
        tree.process(pid, 1, 1, &[pid]);
    }
    let mut scans = Scans::of(&tree);
    assert_eq!(scans.pids(20), [20]);
    assert_eq!(scans.read, 51, "all were new");
    assert_eq!(scans.pids(21), [21]);
    assert_eq!(scans.read, 0);
    tree.process(60, 1, 1, &[60]);
    assert_eq!(scans.pids(60), [60]);
    assert_eq!(scans.read, 2, "the new one, and its parent");
    // A socket of one in which others were found: it is looked at first.
    tree.open(20, 50, 1000);
    assert_eq!(scans.pids(1000), [20]);
    assert!(scans.read <= 8, "{} were read", scans.read);
    // One of no favourite: among all others.
    tree.open(45, 50, 1001);
    assert_eq!(scans.pids(1001), [45]);
    assert!(scans.read <= 60, "{} were read", scans.read);
    assert_eq!(scans.pids(1002), NOBODY, "nobody's");
    assert!(
        (52..=60).contains(&scans.read),
        "each at least once: {}",
        scans.read
    );
}

#[test]
fn what_was_closed_or_has_moved_is_not_told_from_memory() {
    let tree = Tree::new();
    tree.process(10, 1, 1, &[7, 8]);
    tree.process(11, 10, 2, &[7]);
    let mut scans = Scans::of(&tree);
    assert_eq!(scans.pids(7), [10, 11]);
    tree.close(10, 3);
    assert_eq!(scans.pids(7), [11], "the fork keeps it");
    tree.close(11, 3);
    tree.open(11, 9, 7);
    assert_eq!(scans.pids(7), [11], "at another descriptor");
    tree.end(11);
    assert_eq!(scans.pids(7), NOBODY);
    assert_eq!(scans.pids(8), [10]);
}

#[test]
fn a_pid_used_again_names_the_new_process_or_nobody() {
    let tree = Tree::new();
    tree.process(10, 1, 1, &[7]);
    tree.process(11, 1, 1, &[8]);
    let mut scans = Scans::of(&tree);
    assert_eq!(scans.pids(7), [10]);
    tree.end(10);
    tree.process(10, 1, 50, &[9]);
    assert_eq!(scans.pids(7), NOBODY);
    let Attribution::Held(holders) = scans.ask(9) else {
        panic!("it is held");
    };
    assert_eq!(holders.oldest[0].started, 50);
}

#[test]
fn a_pid_used_again_in_the_middle_of_a_reading_changes_nothing() {
    let tree = Tree::new();
    tree.process(10, 1, 1, &[7]);
    let root = crate::sys::Folder::open(&tree.root).unwrap();
    let mut reading = read::Reading::begin(&root, 10, 1).unwrap();
    std::fs::rename(tree.home(10), tree.home(11)).unwrap();
    tree.process(10, 1, 50, &[8]);
    let mut scratch = crate::sys::Scratch::default();
    while !reading.step(&mut scratch).unwrap() {}
    assert_eq!(reading.found, [read::Held { inode: 7, fd: 3 }]);
    let users = &mut Passwd::at(&tree.root);
    let named = read::name(&reading.home, 10, false, users, &mut scratch).unwrap();
    assert_eq!(named.process.started, 1);
    assert_eq!(read::holds(&reading.home, reading.found[0]), Ok(true));
    tree.end(11);
    assert!(read::name(&reading.home, 10, false, users, &mut scratch).is_err());
}

#[test]
fn a_parent_that_opened_it_after_it_was_read_is_found_by_its_child() {
    let tree = Tree::new();
    tree.process(10, 1, 1, &[]);
    let mut scans = Scans::of(&tree);
    assert_eq!(scans.pids(7), NOBODY);
    tree.open(10, 3, 7);
    tree.process(11, 10, 2, &[7]);
    tree.process(12, 11, 3, &[7]);
    assert_eq!(scans.pids(7), [10, 11, 12]);
    assert_eq!(scans.read, 3);
}

#[test]
fn kernel_threads_and_zombies_are_read_once() {
    let tree = Tree::new();
    for (pid, state, flags) in [(2, "S", 0x0020_8040), (3, "Z", 0x40_0000)] {
        tree.process(pid, 0, 1, &[]);
        tree.close(pid, 0);
        let line = format!("{pid} (k) {state} 2 0 0 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 1 0 5 0");
        std::fs::write(tree.home(pid).join("stat"), line).unwrap();
    }
    let mut scans = Scans::of(&tree);
    assert_eq!(scans.pids(7), NOBODY);
    assert_eq!(scans.read, 3);
    assert_eq!(scans.pids(7), NOBODY);
    assert_eq!(scans.read, 1, "the one that could have opened it");
}

#[test]
fn the_search_goes_on_where_its_budget_was_over() {
    let tree = Tree::new();
    for pid in 10..30 {
        tree.process(pid, 1, 1, &[pid]);
    }
    // More than one getdents64 gives.
    for fd in 100..3000 {
        tree.open(15, fd, fd);
    }
    let mut scanner = tree.scanner();
    let want = Want {
        inode: 2999,
        uid: None,
        since: 1,
    };
    for turn in 1..100 {
        let report = scanner.scan(&[want], turn, Duration::ZERO);
        assert!(report.read <= 1, "one at least, and no more");
        if let [(2999, Attribution::Held(holders))] = &report.answers[..] {
            assert_eq!(holders.oldest[0].pid, 15);
            assert!(turn > 21, "not in {turn} turns");
            assert_eq!(scanner.remembered(), (21, 20 + 2900));
            return;
        }
        assert_eq!(report.answers, []);
    }
    panic!("never found");
}

#[test]
fn many_questions_share_a_scan() {
    let tree = Tree::new();
    for pid in 10..60 {
        tree.process(pid, 1, 1, &[pid, 1000 + pid]);
    }
    let mut scanner = tree.scanner();
    let wants: Vec<Want> = (0..2000)
        .map(|inode| Want {
            inode,
            uid: None,
            since: 1,
        })
        .collect();
    let report = scanner.scan(&wants, 1, LONG);
    assert_eq!(report.read, 51);
    assert_eq!(report.answers.len(), 2000);
    let held = |answer: &(u32, Attribution)| matches!(answer.1, Attribution::Held(_));
    assert_eq!(
        report.answers.iter().filter(|answer| held(answer)).count(),
        100
    );
    let list = |inode: usize| match &report.answers[inode].1 {
        Attribution::Held(holders) => holders.clone(),
        Attribution::Unknown(why) => panic!("{why:?}"),
    };
    assert!(
        Arc::ptr_eq(&list(10), &list(1010)),
        "one list for one process"
    );
}

#[test]
fn without_proc_nothing_is_permitted() {
    let tree = Tree::new();
    let mut scanner = Scanner::new(&tree.root.join("nowhere"), false, Passwd::default());
    let want = Want {
        inode: 1,
        uid: None,
        since: 1,
    };
    let report = scanner.scan(&[want], 1, LONG);
    let unknown = Attribution::Unknown(ProcessUnknown::NotPermitted);
    assert_eq!(report.answers, [(1, unknown.clone())]);
    // Nor where processes are hidden: the first one always is.
    tree.end(1);
    assert_eq!(Scans::of(&tree).ask(5), unknown);
}

/// Processes over a tree, and the wake-ups.
fn asking(tree: &Tree) -> (Processes, mpsc::Receiver<()>) {
    let (tx, woken) = mpsc::channel();
    // A test that is done looks no longer.
    let wake: Wake = Arc::new(move || tx.send(()).unwrap_or(()));
    (
        Processes::with_scanner(tree.scanner(), wake, Rc::default()),
        woken,
    )
}

/// Waits for all answers, in order of inodes.
fn answers(processes: &mut Processes, woken: &mpsc::Receiver<()>) -> Vec<(u32, Attribution)> {
    let mut found = Vec::new();
    while processes.is_busy() {
        processes.search(Now::read());
        if processes.deadline(Now::read()).is_none() {
            woken.recv_timeout(LONG).unwrap();
        }
        processes.collect(Now::read(), &mut found);
    }
    found.sort_by_key(|(inode, _)| *inode);
    found
}

#[test]
fn each_asker_is_answered_once() {
    let tree = Tree::new();
    for pid in 10..20 {
        tree.process(pid, 1, 1, &[pid]);
    }
    let (mut processes, woken) = asking(&tree);
    let until = Instant::now() + LONG;
    let kernel = Attribution::Unknown(ProcessUnknown::Kernel);
    assert_eq!(processes.ask(0, None, until), Lookup::Known(kernel));
    for _ in 0..2 {
        for inode in 10..25 {
            assert_eq!(processes.ask(inode, Some(0), until), Lookup::Pending);
        }
    }
    let found = answers(&mut processes, &woken);
    let inodes: Vec<u32> = found.iter().map(|(inode, _)| *inode).collect();
    assert_eq!(inodes, (10..25).collect::<Vec<_>>());
    for (inode, answer) in found {
        match answer {
            Attribution::Held(holders) => assert_eq!(holders.oldest[0].pid, inode),
            Attribution::Unknown(why) => assert!(why == ProcessUnknown::Gone && inode >= 20),
        }
    }
    assert_eq!(processes.stats.processes_asked.count(), 15);
}

#[test]
fn more_than_can_wait_are_told_so_and_those_whose_time_is_over_leave() {
    let tree = Tree::new();
    let (mut processes, woken) = asking(&tree);
    let now = Now::read();
    for inode in 1..=LINE as u32 {
        assert_eq!(processes.ask(inode, None, now.mono), Lookup::Pending);
    }
    let timeout = Attribution::Unknown(ProcessUnknown::Timeout);
    let another = LINE as u32 + 1;
    assert_eq!(
        processes.ask(another, None, now.mono + LONG),
        Lookup::Known(timeout)
    );
    assert_eq!(processes.stats.processes_overload.count(), 1);
    processes.search(Now::read());
    assert_eq!(answers(&mut processes, &woken), [], "nobody waits any more");
}

#[test]
fn a_socket_that_has_ended_is_looked_for_no_longer() {
    let tree = Tree::new();
    tree.process(10, 1, 1, &[10]);
    let (mut processes, woken) = asking(&tree);
    let until = Instant::now() + LONG;
    let gone = Attribution::Unknown(ProcessUnknown::Gone);
    assert_eq!(processes.ask(10, None, until), Lookup::Pending);
    assert_eq!(
        processes.ended(10),
        Lookup::Known(gone.clone()),
        "not begun"
    );
    assert!(!processes.is_busy());
    // Under way: what that finds is told, and nothing is looked for after it.
    for inode in [10, 11] {
        assert_eq!(processes.ask(inode, None, until), Lookup::Pending);
    }
    processes.search(Now::read());
    for inode in [10, 11] {
        assert_eq!(processes.ended(inode), Lookup::Pending);
    }
    woken.recv_timeout(LONG).unwrap();
    let mut found = Vec::new();
    processes.collect(Now::read(), &mut found);
    found.sort_by_key(|(inode, _)| *inode);
    let [(10, Attribution::Held(_)), (11, why)] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(*why, gone);
    assert!(!processes.is_busy());
}

#[test]
fn a_search_that_has_had_its_share_rests_and_all_wait_for_the_next() {
    let tree = Tree::new();
    tree.process(10, 1, 1, &[10]);
    let (mut processes, woken) = asking(&tree);
    let now = Now::read();
    processes.account.spend(LONG, now.mono);
    for inode in [10, 11] {
        let asked = processes.ask(inode, None, now.mono + 10 * LONG);
        assert_eq!(asked, Lookup::Pending);
        processes.search(now);
    }
    assert!(!processes.busy);
    let rests = processes.deadline(now).expect("it goes on at some time");
    assert!(rests > now.mono + LONG);
    let then = Now { mono: rests, ..now };
    assert_eq!(processes.deadline(then), None);
    processes.search(then);
    woken.recv_timeout(LONG).unwrap();
    let mut found = Vec::new();
    processes.collect(then, &mut found);
    assert_eq!(found.len(), 2, "by one scan");
}

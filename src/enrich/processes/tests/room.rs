//! What the search costs where there is little room to remember, or little time;
//! and that it forgets.

use proptest::prelude::*;

use super::super::memory::common;
use super::super::read::Held;
use super::*;

/// Puts all these questions, and asks until each is answered or `turns` are over,
/// with time for one process a turn: who has them, and how often one was read.
fn ask_all(
    scanner: &mut Scanner,
    turn: &mut u64,
    inodes: impl IntoIterator<Item = u32>,
    turns: u64,
) -> (Vec<(u32, Attribution)>, u64) {
    let since = *turn + 1;
    let want = |inode| Want {
        inode,
        uid: None,
        since,
    };
    let mut wants: Vec<Want> = inodes.into_iter().map(want).collect();
    let (mut answers, mut read) = (Vec::new(), 0);
    while !wants.is_empty() {
        *turn += 1;
        assert!(*turn < since + turns, "{} without an answer", wants.len());
        let report = scanner.scan(&wants, *turn, Duration::ZERO);
        read += report.read;
        wants.retain(|want| report.answers.iter().all(|(of, _)| *of != want.inode));
        answers.extend(report.answers);
    }
    (answers, read)
}

fn holder(answer: &Attribution) -> Option<u32> {
    match answer {
        Attribution::Held(holders) => Some(holders.oldest[0].pid),
        Attribution::Unknown(_) => None,
    }
}

/// As many sockets as ten processes hold 20 each: which process has one.
const SOCKETS: std::ops::Range<u32> = 1000..1200;

fn of(inode: u32) -> u32 {
    10 + (inode - 1000) / 20
}

fn crowd() -> Tree {
    let tree = Tree::new();
    for pid in 10..20 {
        let sockets: Vec<u32> = SOCKETS.filter(|inode| of(*inode) == pid).collect();
        tree.process(pid, 1, 1, &sockets);
    }
    tree
}

#[test]
fn without_room_a_process_is_read_once_for_all_that_was_asked_before() {
    let tree = crowd();
    let mut scanner = tree.scanner().remembering(50);
    let mut turn = 0;
    for part in 0..4 {
        let asked = SOCKETS.skip(part).step_by(4);
        let (answers, read) = ask_all(&mut scanner, &mut turn, asked, 60);
        assert!(read <= 11, "{read} were read for one and the same moment");
        assert_eq!(answers.len(), 50);
        for (inode, answer) in answers {
            assert_eq!(holder(&answer), Some(of(inode)), "of {inode}");
        }
    }
    // Two of ten have room, and of the others what was asked for last.
    let (_, sockets) = scanner.remembered();
    assert!(sockets <= 50 + 50, "{sockets} are remembered");
}

#[test]
fn with_room_each_process_is_read_once() {
    let tree = crowd();
    let mut scanner = tree.scanner();
    let mut turn = 0;
    let mut all = 0;
    for part in 0..4 {
        let asked = SOCKETS.skip(part).step_by(4);
        let (answers, read) = ask_all(&mut scanner, &mut turn, asked, 30);
        assert!(
            answers
                .iter()
                .all(|(of_, answer)| holder(answer) == Some(of(*of_)))
        );
        all += read;
    }
    assert_eq!(all, 11);
}

/// Processes that held what was asked before are tried first, and once.
#[test]
fn likely_processes_do_not_keep_the_search_from_the_others() {
    let tree = crowd();
    let mut scanner = tree.scanner();
    let mut turn = 0;
    ask_all(&mut scanner, &mut turn, SOCKETS, 30);
    let (answers, read) = ask_all(&mut scanner, &mut turn, [4711], 30);
    assert_eq!((answers.len(), holder(&answers[0].1), read), (1, None, 11));
}

#[test]
fn what_has_ended_is_forgotten() {
    let tree = crowd();
    tree.process(30, 1, 1, &[]);
    for fd in 100..3000 {
        tree.open(30, fd, 10_000 + fd);
    }
    let mut scanner = tree.scanner();
    let mut turn = 0;
    ask_all(&mut scanner, &mut turn, SOCKETS, 30);
    assert_eq!(scanner.remembered(), (12, 200 + 2900));
    tree.end(10);
    for fd in 200..3000 {
        tree.close(30, fd);
    }
    let report = scanner.forget_ended(turn + 1, LONG);
    assert_eq!((report.read, report.answers.len()), (1, 0));
    assert_eq!(scanner.remembered(), (11, 180 + 100));
}

/// The thread does so when nobody waits.
#[test]
fn it_forgets_when_it_is_told_to() {
    let tree = crowd();
    let (mut processes, woken) = asking(&tree);
    processes.forget_ended();
    processes.search(Now::read());
    assert!(!processes.is_busy(), "nothing is remembered yet");
    processes.ask(1000, None, Instant::now() + LONG);
    assert_eq!(answers(&mut processes, &woken).len(), 1);
    processes.forget_ended();
    while processes.deadline(Now::read()).is_some() {
        std::thread::sleep(Duration::from_millis(1));
    }
    processes.search(Now::read());
    assert!(processes.is_busy());
    assert_eq!(answers(&mut processes, &woken), []);
    processes.search(Now::read());
    assert!(!processes.is_busy(), "once");
}

proptest! {
    /// However many there are of each.
    #[test]
    fn what_is_wanted_and_held(
        wants in prop::collection::btree_set(0_u32..400, 0..200),
        held in prop::collection::btree_set(0_u32..400, 0..200),
        few in 0_usize..4,
    ) {
        let (mut wants, mut held): (Vec<_>, Vec<_>) = (Vec::from_iter(wants), Vec::from_iter(held));
        match few {
            0 => wants.truncate(4),
            1 => held.truncate(4),
            _ => {}
        }
        let both: Vec<u32> = held.iter().copied().filter(|inode| wants.contains(inode)).collect();
        let wants: Vec<Want> = wants.into_iter().map(|inode| Want { inode, uid: None, since: 1 }).collect();
        let held: Vec<Held> = held.into_iter().map(|inode| Held { inode, fd: inode + 1 }).collect();
        let found = common(&wants, &held);
        prop_assert!(found.iter().all(|one| one.fd == one.inode + 1));
        prop_assert_eq!(found.into_iter().map(|one| one.inode).collect::<Vec<_>>(), both);
    }
}

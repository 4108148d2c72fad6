//! Searches of directories that a test makes; the real hierarchy is searched in
//! tests/kernel/cgroups.rs.

use super::*;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;

const LONG: Duration = Duration::from_secs(60);

/// Directories of the test's own.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sockwatch-cgroups-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Place(path)
    }

    fn id(&self, below: &str) -> u64 {
        let path = self.0.join(below);
        std::fs::create_dir_all(&path).unwrap();
        path.metadata().unwrap().ino()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn found(tree: &mut Tree, id: u64) -> Result<String, CgroupUnknown> {
    tree.find(id).map(|info| info.path.into_string())
}

#[test]
fn a_search_finds_every_directory() {
    let place = Place::new();
    std::fs::write(place.0.join("cgroup.procs"), "").unwrap();
    let mut tree = tree::below(&place.0, b"");
    assert_eq!(found(&mut tree, place.id("")), Ok("/".into()));
    for n in 0..300 {
        place.id(&format!("a.slice/b-{n}.scope/c"));
    }
    for path in [
        "a.slice",
        "a.slice/b-299.scope",
        "a.slice/b-7.scope/c",
        "z y",
    ] {
        let id = place.id(path);
        assert_eq!(found(&mut tree, id), Ok(format!("/{path}")));
    }
    let id = place.id("gone");
    std::fs::remove_dir(place.0.join("gone")).unwrap();
    assert_eq!(found(&mut tree, id), Err(CgroupUnknown::Gone));
}

#[test]
fn paths_are_told_from_the_root_of_the_hierarchy() {
    let place = Place::new();
    let id = place.id("x");
    let mut tree = tree::below(&place.0, b"/docker/abc");
    assert_eq!(found(&mut tree, id), Ok("/docker/abc/x".into()));
    assert_eq!(found(&mut tree, place.id("")), Ok("/docker/abc".into()));
}

/// Cgroups over a place, and the wake-ups.
fn asking(path: &Path) -> (Cgroups, mpsc::Receiver<()>) {
    let (tx, woken) = mpsc::channel();
    // A test that is done looks no longer.
    let wake: Wake = Arc::new(move || tx.send(()).unwrap_or(()));
    let path = path.to_owned();
    let open = move || {
        path.metadata()?;
        Ok(tree::below(&path, b""))
    };
    (Cgroups::of(open, wake), woken)
}

fn settle(cgroups: &mut Cgroups, woken: &mpsc::Receiver<()>) -> Vec<(u64, CgroupAnswer)> {
    let mut found = Vec::new();
    while cgroups.is_busy() {
        woken.recv_timeout(LONG).unwrap();
        cgroups.collect(Now::read(), &mut found);
    }
    found
}

#[test]
fn what_was_found_is_right_for_good_and_what_was_not_for_a_while() {
    let place = Place::new();
    let (here, gone) = (place.id("here.service"), place.id("gone"));
    std::fs::remove_dir(place.0.join("gone")).unwrap();
    let (mut cgroups, woken) = asking(&place.0);
    let now = Now::read();
    let until = now.mono + LONG;
    assert_eq!(
        cgroups.ask(0, until, now),
        Lookup::Known(Err(CgroupUnknown::NotTold))
    );
    for id in [here, gone, here] {
        assert_eq!(cgroups.ask(id, until, now), Lookup::Pending);
    }
    let found = settle(&mut cgroups, &woken);
    assert_eq!(found.len(), 2);
    let info = found[0].1.clone().unwrap();
    assert_eq!(info.unit.as_deref(), Some("here.service"));
    assert_eq!(found[1], (gone, Err(CgroupUnknown::Gone)));

    std::fs::remove_dir(place.0.join("here.service")).unwrap();
    let later = Now {
        mono: now.mono + 100 * TTL,
        ..now
    };
    assert_eq!(cgroups.ask(here, until, later), Lookup::Known(Ok(info)));
    assert_eq!(
        cgroups.recall(gone, Now::read()),
        Some(Err(CgroupUnknown::Gone))
    );
    assert_eq!(cgroups.ask(gone, later.mono + LONG, later), Lookup::Pending);
}

#[test]
fn a_hierarchy_that_is_mounted_later_is_found() {
    let place = Place::new();
    let (mut cgroups, woken) = asking(&place.0.join("later"));
    let now = Now::read();
    cgroups.ask(1, now.mono + LONG, now);
    let found = settle(&mut cgroups, &woken);
    assert_eq!(found, [(1, Err(CgroupUnknown::NotMounted))]);
    let id = place.id("later/x.scope");
    cgroups.ask(id, now.mono + LONG, now);
    let found = settle(&mut cgroups, &woken);
    assert_eq!(&*found[0].1.as_ref().unwrap().path, "/x.scope");
}

#[test]
fn what_nobody_waits_for_is_bounded() {
    let place = Place::new();
    let (mut cgroups, woken) = asking(&place.0);
    let now = Now::read();
    for id in 1..10_000 {
        // Each answer is one of these two.
        match cgroups.ask(id << 40, now.mono, now) {
            Lookup::Pending | Lookup::Known(Err(CgroupUnknown::Timeout)) => {}
            other => panic!("{other:?}"),
        }
        assert!(cgroups.pending.len() <= 2 * LINE);
    }
    settle(&mut cgroups, &woken);
    assert!(cgroups.pending.is_empty());
}

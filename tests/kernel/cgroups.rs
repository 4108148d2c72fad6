//! A cgroup of the test's own, found by the id that the kernel gave it.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use sockwatch::enrich::cgroups::Tree;
use sockwatch::model::CgroupUnknown;

use crate::netns;

/// A directory in the cgroup2 hierarchy.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make(path: PathBuf) -> std::io::Result<Cgroup> {
        std::fs::create_dir(&path)?;
        Ok(Cgroup(path))
    }

    fn id(&self) -> u64 {
        std::fs::metadata(&self.0).expect("it was made").ino()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir(&self.0) {
            netns::visibly(&format!("{}: {error}", self.0.display()));
        }
    }
}

/// Where the whole of cgroup2 is mounted.
fn mounted() -> Option<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    table.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let fields: Vec<&str> = mount.split(' ').collect();
        (kind.starts_with("cgroup2 ") && fields[3] == "/").then(|| fields[4].into())
    })
}

#[test]
fn a_cgroup_made_by_the_test() {
    let name = "cgroups::a_cgroup_made_by_the_test";
    let Some(top) = mounted() else {
        return netns::visibly(&format!("SKIPPED {name}: no cgroup2 is mounted here"));
    };
    let unit = format!("sockwatch-test-{}.service", std::process::id());
    let outer = match Cgroup::make(top.join(&unit)) {
        Ok(outer) => outer,
        Err(error) => return netns::visibly(&format!("SKIPPED {name}: no cgroup: {error}")),
    };
    let inner = Cgroup::make(outer.0.join("a b")).expect("one in one's own");
    let ids = (outer.id(), inner.id());
    let root = std::fs::metadata(&top).expect("it is mounted").ino();
    let tree = || Tree::mounted().expect("cgroup2 is mounted");
    for (way, mut tree) in [("by handle", tree()), ("by search", tree().searching())] {
        let path = |info: sockwatch::model::CgroupInfo| info.path.into_string();
        assert_eq!(tree.find(root).map(path), Ok("/".into()), "{way}");
        let found = tree.find(ids.1).expect(way);
        assert_eq!(*found.path, *format!("/{unit}/a b"), "{way}");
        assert_eq!(found.unit.as_deref(), Some(&*unit), "{way}");
        assert_eq!(found.container, None);
        let found = tree.find(ids.0).expect(way);
        assert_eq!(*found.path, *format!("/{unit}"), "{way}");
    }

    // Removed, and one of the same name made: another id, and the old one is
    // nobody's.
    drop(inner);
    let again = Cgroup::make(outer.0.join("a b")).expect("as before");
    assert!(again.id() > ids.1, "ids are counted on");
    for mut tree in [tree(), tree().searching()] {
        assert_eq!(tree.find(ids.1), Err(CgroupUnknown::Gone));
        assert!(tree.find(again.id()).is_ok());
    }
}

//! The hierarchy itself: from a cgroup's id to its path.
//!
//! The id is the number of the directory's kernfs node, so the kernel can be
//! asked for it directly, which needs CAP_DAC_READ_SEARCH; unprivileged, the
//! directories are searched for one with that inode. Either way what is found is
//! held against the id, since a path can be another's a moment later.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use super::mounts::{self, Mount};
use super::path;
use crate::model::{CgroupInfo, CgroupUnknown};
use crate::sys::{Folder, Scratch};

/// How long one search may take: 10,000 directories and more.
const SEARCH: Duration = Duration::from_millis(200);

/// How deep it goes. The kernel has no limit of its own by default
/// (cgroup.max.depth).
const DEPTH: usize = 64;

/// A mounted hierarchy.
#[derive(Debug)]
pub struct Tree {
    mount: Mount,
    top: Folder,
    /// By handle, as far as is known.
    handles: bool,
    scratch: Scratch,
}

impl Tree {
    /// The cgroup2 hierarchy that the calling process sees.
    ///
    /// # Errors
    /// Those of reading the mount table; ENOENT when there is none.
    pub fn mounted() -> io::Result<Tree> {
        let mut error = io::Error::from_raw_os_error(libc::ENOENT);
        for mount in mounts::parse(&std::fs::read("/proc/self/mountinfo")?) {
            match Folder::open(&mount.point) {
                // Another file system may lie over it.
                Ok(top) if top.is_cgroup2()? => return Ok(Tree::at(mount, top)),
                Ok(_) => {}
                Err(why) => error = why,
            }
        }
        Err(error)
    }

    fn at(mount: Mount, top: Folder) -> Tree {
        Tree {
            mount,
            top,
            handles: true,
            scratch: Scratch::default(),
        }
    }

    /// Does without handles from here on, as it has to unprivileged.
    #[must_use]
    pub fn searching(mut self) -> Tree {
        self.handles = false;
        self
    }

    /// The cgroup with this id.
    ///
    /// # Errors
    /// Why there is none.
    pub fn find(&mut self, id: u64) -> Result<CgroupInfo, CgroupUnknown> {
        if self.handles {
            match self.by_handle(id) {
                Ok(below) => return Ok(self.info(&below)),
                Err(error) => match error.raw_os_error() {
                    Some(libc::ESTALE | libc::ENOENT) => return Err(CgroupUnknown::Gone),
                    _ => {
                        log::debug!("cgroups: no handles: {error}; the tree is searched");
                        self.handles = false;
                    }
                },
            }
        }
        self.search(id).map(|below| self.info(&below))
    }

    fn by_handle(&self, id: u64) -> io::Result<Vec<u8>> {
        let stale = || io::Error::from_raw_os_error(libc::ESTALE);
        let path = self.top.by_handle(id)?.path()?;
        // Not below the mount where only a part of the hierarchy is mounted.
        let below = path.strip_prefix(&self.mount.point).map_err(|_| stale())?;
        if !same(id, Folder::open(&path)?.identity()?.0) {
            return Err(stale());
        }
        Ok(below.as_os_str().as_bytes().to_vec())
    }

    fn info(&self, below: &[u8]) -> CgroupInfo {
        let mut path = self.mount.root.clone();
        if !below.is_empty() || path.is_empty() {
            path.push(b'/');
        }
        path.extend(below);
        path::read(&path)
    }

    fn search(&mut self, id: u64) -> Result<Vec<u8>, CgroupUnknown> {
        let failed = |error: io::Error| {
            log::debug!("cgroups: {error}");
            CgroupUnknown::NotMounted
        };
        if same(id, self.top.identity().map_err(failed)?.0) {
            return Ok(Vec::new());
        }
        self.top.rewind().map_err(failed)?;
        let mut search = Search {
            id,
            until: Instant::now() + SEARCH,
            path: Vec::new(),
            missed: None,
            scratch: &mut self.scratch,
        };
        if search.below(&self.top, 0) {
            return Ok(search.path);
        }
        Err(search.missed.unwrap_or(CgroupUnknown::Gone))
    }
}

struct Search<'a> {
    id: u64,
    until: Instant,
    /// Where the search is, and in the end where the cgroup is.
    path: Vec<u8>,
    /// Why a part was left out.
    missed: Option<CgroupUnknown>,
    scratch: &'a mut Scratch,
}

impl Search<'_> {
    /// Depth first; true when found.
    fn below(&mut self, folder: &Folder, depth: usize) -> bool {
        let (mut children, mut found) = (Vec::new(), None);
        loop {
            match folder.next(self.scratch) {
                Ok(Some(items)) => {
                    for item in items.filter(|item| item.is_folder) {
                        if same(self.id, item.inode) {
                            found = Some(item.name.to_vec());
                        }
                        children.push(item.name.to_vec());
                    }
                }
                Ok(None) => break,
                Err(error) => return self.miss(&error),
            }
        }
        if let Some(name) = found {
            self.enter(&name);
            return true;
        }
        if depth >= DEPTH || Instant::now() >= self.until {
            if !children.is_empty() {
                self.missed = Some(CgroupUnknown::Timeout);
            }
            return false;
        }
        for name in children {
            let length = self.path.len();
            self.enter(&name);
            let found = match folder.child(&name) {
                Ok(child) => self.below(&child, depth + 1),
                Err(error) => self.miss(&error),
            };
            if found {
                return true;
            }
            self.path.truncate(length);
        }
        false
    }

    fn enter(&mut self, name: &[u8]) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend(name);
    }

    /// A directory that could not be read; one that was removed meanwhile was
    /// not to be found anyway.
    fn miss(&mut self, error: &io::Error) -> bool {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV) => {}
            Some(libc::EACCES | libc::EPERM) => self.missed = Some(CgroupUnknown::NotPermitted),
            _ => {
                log::debug!("cgroups: {error}");
                self.missed = Some(CgroupUnknown::NotPermitted);
            }
        }
        false
    }
}

/// Whether an inode is that of the cgroup with this id. They are one number
/// where inodes have 64 bits; where they have 32 the inode is the lower half
/// (kernfs_ino).
fn same(id: u64, inode: u64) -> bool {
    if cfg!(target_pointer_width = "64") {
        id == inode
    } else {
        id & 0xffff_ffff == inode
    }
}

/// A tree that is a directory of the test's own.
#[cfg(test)]
pub(super) fn below(path: &std::path::Path, root: &[u8]) -> Tree {
    let mount = Mount {
        root: root.to_vec(),
        point: path.to_owned(),
    };
    Tree::at(mount, Folder::open(path).unwrap()).searching()
}

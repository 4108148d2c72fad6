//! The other network namespaces of this machine: which there are, how to get into
//! each, and what is fetched from there.
//!
//! Nothing in here keeps a namespace alive beyond a call: the nsfs file of one is
//! open for as long as it takes to go in, and the thread comes home again. Since
//! a name or a process may stand for another namespace the next time, what is
//! entered is compared by inode and, where the kernel has one, by the cookie that
//! is never given again.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::ids::Ids;
use super::procs::Procs;
use super::{Entered, Found, Looked, Number, Refused, Setup};
use crate::model::Netns;
use crate::source::counters::Reading;
use crate::sys::{Folder, Namespace, Netlink, Scratch};

/// Where ip-netns(8) has its names.
const NAMES: &str = "/run/netns";
/// How many namespaces are watched.
pub const MOST: usize = 4096;
/// How much CPU time one look at the processes may take.
const BUDGET: Duration = Duration::from_millis(2);
/// After so many looks the processes of a namespace are in the cgroups in which
/// they stay.
const SETTLED: u8 = 20;
/// How often it is tried to come home.
const TRIES: u32 = 100;
/// The rest between two tries.
const REST: Duration = Duration::from_millis(10);

/// Why nothing was fetched.
#[derive(Debug)]
pub(super) enum Astray {
    /// The namespace cannot be entered.
    Refused(io::Error),
    /// The thread cannot come home: it must end, or it keeps where it is alive.
    Lost(io::Error),
}

impl From<io::Error> for Astray {
    fn from(error: io::Error) -> Astray {
        Astray::Refused(error)
    }
}

/// What leads into a namespace.
#[derive(Clone, Debug, Default)]
struct Ways {
    name: Option<PathBuf>,
    pids: Vec<u32>,
}

impl Ways {
    /// Whether the name that they give is the same, unless a process has got
    /// another cgroup.
    fn are_like(&self, other: &Ways) -> bool {
        self.name == other.name && self.pids.first() == other.pids.first()
    }

    fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let of = |pid: &u32| PathBuf::from(format!("/proc/{pid}/ns/net"));
        self.name.iter().cloned().chain(self.pids.iter().map(of))
    }
}

#[derive(Debug)]
struct Known {
    inode: u32,
    cookie: Option<u64>,
    id: Option<i32>,
    name: Option<Arc<str>>,
    ways: Ways,
    /// How often the name was looked for.
    looks: u8,
}

/// All namespaces but our own.
#[derive(Debug)]
pub(super) struct Atlas {
    home: Namespace,
    /// `/proc/thread-self/net` of the thread that goes.
    net: Folder,
    scratch: Scratch,
    procs: Procs,
    ids: Option<Ids>,
    container: fn(&[u8]) -> Option<String>,
    known: BTreeMap<Number, Known>,
    /// Those that could not be entered, and have been told.
    refused: HashSet<u32>,
    own_name: Option<Arc<str>>,
    next: u32,
}

impl Atlas {
    /// For the calling thread, which must be the one that goes, and be at home.
    ///
    /// # Errors
    /// EPERM where it may not go anywhere.
    pub fn new(setup: &Setup) -> io::Result<Atlas> {
        let home = Namespace::current()?;
        // Whoever may not even stay may not go.
        home.enter()?;
        Ok(Atlas {
            net: Folder::open(Path::new("/proc/thread-self/net"))?,
            home,
            scratch: Scratch::default(),
            procs: Procs::open(Path::new("/proc"))?,
            ids: setup.ids.then(Ids::open).transpose()?,
            container: setup.container,
            known: BTreeMap::new(),
            refused: HashSet::new(),
            own_name: None,
            next: 0,
        })
    }

    /// Looks at what there is. Without a budget it takes the time that it needs.
    pub fn look(&mut self, bounded: bool) -> Result<Looked, Astray> {
        let covered = self.procs.look(bounded.then_some(BUDGET))?;
        let mut looked = Looked {
            covered,
            denied: self.procs.are_denied(),
            ..Looked::default()
        };
        let mut ways = self.ways();
        let own = ways.remove(&self.home.inode()).unwrap_or_default();
        looked.own = self.own(&own);
        if let Some(ids) = &mut self.ids {
            looked.own_id = ids.known(&self.home)?;
        }
        for (number, known) in &mut self.known {
            let ways = ways.remove(&known.inode).unwrap_or_default();
            let is_same = known.ways.are_like(&ways);
            known.ways = ways;
            // One that nothing leads to any more keeps the name that it had.
            let is_lost = known.ways.paths().next().is_none();
            if is_lost || is_same && known.looks == SETTLED {
                continue;
            }
            known.looks = (known.looks + 1).min(SETTLED);
            let name = name(&known.ways, &mut self.procs, self.container);
            if name != known.name {
                known.name.clone_from(&name);
                looked.named.push((*number, name));
            }
        }
        self.refused.retain(|inode| ways.contains_key(inode));
        for (inode, ways) in ways {
            if self.known.len() >= MOST {
                looked.left_out += 1;
                continue;
            }
            match self.meet(inode, &ways) {
                Ok(found) => {
                    self.refused.remove(&inode);
                    looked.found.push(found);
                }
                Err(Astray::Refused(error)) => {
                    let is_gone = error.kind() == io::ErrorKind::NotFound;
                    if !is_gone && self.refused.insert(inode) {
                        let name = name(&ways, &mut self.procs, self.container);
                        looked.refused.push(Refused {
                            netns: Netns(inode),
                            name,
                            error,
                        });
                    }
                }
                Err(lost) => return Err(lost),
            }
        }
        looked.refused_now = self.refused.len();
        Ok(looked)
    }

    /// What leads to each namespace, by inode.
    fn ways(&self) -> BTreeMap<u32, Ways> {
        let each = self.procs.namespaces().into_iter();
        let mut ways: BTreeMap<u32, Ways> = each
            .map(|(inode, pids)| (inode, Ways { name: None, pids }))
            .collect();
        // Without the directory no namespace has a name.
        for entry in std::fs::read_dir(NAMES).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(found) = std::fs::metadata(&path) else {
                continue;
            };
            let Ok(inode) = u32::try_from(found.ino()) else {
                continue;
            };
            if found.dev() != self.home.device() {
                continue;
            }
            let name = &mut ways.entry(inode).or_default().name;
            if name.as_ref().is_none_or(|other| path < *other) {
                *name = Some(path);
            }
        }
        ways
    }

    /// Our own namespace has a name only under /run/netns: whose container a
    /// process in it is says nothing of it.
    fn own(&mut self, ways: &Ways) -> Option<Option<Arc<str>>> {
        let name = ways.name.as_deref().map(shown);
        if name == self.own_name {
            return None;
        }
        self.own_name.clone_from(&name);
        Some(name)
    }

    /// Goes into a namespace for the first time.
    fn meet(&mut self, inode: u32, ways: &Ways) -> Result<Found, Astray> {
        let namespace = self.open(inode, ways)?;
        let netlink = self.within(&namespace, |_, _| Netlink::open())??;
        let id = self
            .ids
            .as_mut()
            .map(|ids| ids.of(&namespace))
            .transpose()?;
        let name = name(ways, &mut self.procs, self.container);
        let number = Number(self.next);
        self.next = self.next.wrapping_add(1);
        self.known.insert(
            number,
            Known {
                inode,
                cookie: netlink.netns_cookie(),
                id,
                name: name.clone(),
                ways: ways.clone(),
                looks: 0,
            },
        );
        Ok(Found {
            number,
            netns: Netns(inode),
            id,
            name,
        })
    }

    /// A namespace has ended.
    pub fn forget(&mut self, number: Number) {
        self.known.remove(&number);
    }

    /// The namespaces whose ids nobody has any more.
    pub fn ended(&mut self) -> Vec<Number> {
        let Some(ids) = &mut self.ids else {
            return Vec::new();
        };
        let mut ended = Vec::new();
        for (number, known) in &self.known {
            match known.id.map(|id| ids.is_free(id)) {
                Some(Ok(true)) => ended.push(*number),
                Some(Ok(false)) | None => {}
                Some(Err(error)) => log::debug!("cannot ask for a namespace's id: {error}"),
            }
        }
        ended
    }

    /// Reads the counters of a namespace.
    pub fn read(&mut self, number: Number) -> Result<Reading, Astray> {
        let namespace = self.reopen(number)?;
        let reading = self.within(&namespace, Reading::here)?;
        Ok(reading?)
    }

    /// Opens the sockets for a dump in a namespace. They keep it alive.
    pub fn sockets(&mut self, number: Number) -> Result<Entered, Astray> {
        let namespace = self.reopen(number)?;
        let both = self.within(&namespace, |_, _| {
            Ok::<_, io::Error>((Netlink::open_asking()?, Netlink::open_asking()?))
        })?;
        let (dump, query) = both?;
        let cookie = self.known.get(&number).and_then(|known| known.cookie);
        if cookie != dump.netns_cookie() {
            return Err(another().into());
        }
        Ok(Entered { dump, query })
    }

    fn reopen(&self, number: Number) -> io::Result<Namespace> {
        let known = self.known.get(&number).ok_or_else(another)?;
        self.open(known.inode, &known.ways)
    }

    /// Opens a namespace by the first of its ways that still leads there.
    fn open(&self, inode: u32, ways: &Ways) -> io::Result<Namespace> {
        let mut failed = another();
        for path in ways.paths() {
            match Namespace::open(&path) {
                Ok(one) if one.inode() == inode && one.device() == self.home.device() => {
                    return Ok(one);
                }
                Ok(_) => {}
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Does something in a namespace.
    fn within<T>(
        &mut self,
        namespace: &Namespace,
        work: impl FnOnce(&Folder, &mut Scratch) -> T,
    ) -> Result<T, Astray> {
        namespace.enter()?;
        let done = work(&self.net, &mut self.scratch);
        let mut tries = 0;
        while let Err(error) = self.home.enter() {
            tries += 1;
            if tries == TRIES {
                return Err(Astray::Lost(error));
            }
            std::thread::sleep(REST);
        }
        Ok(done)
    }
}

/// What once led there leads elsewhere now.
fn another() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// The name of a namespace: its path under /run/netns, or the container of the
/// oldest process in it.
fn name(
    ways: &Ways,
    procs: &mut Procs,
    container: fn(&[u8]) -> Option<String>,
) -> Option<Arc<str>> {
    if let Some(path) = &ways.name {
        return Some(shown(path));
    }
    let cgroup = procs.cgroup(*ways.pids.first()?).ok()?;
    container(cgroup).map(Arc::from)
}

/// A path as text: bytes that are none are replaced.
fn shown(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}

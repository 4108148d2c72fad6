//! The programs: loaded, attached, and given up again.

use std::error::Error;
use std::io;
use std::os::fd::AsFd;

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray};
use aya::programs::cgroup_sock_addr::CgroupSockAddrLink;
use aya::programs::fentry::FEntryLink;
use aya::programs::lsm::LsmLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr, FEntry, Lsm, Program, ProgramError};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader};

use super::mounts::{self, Cgroup};
use super::reasons::Facts;
use super::{Setup, Tried};
use crate::model::Origin;
use crate::sys::Ring;

/// The compiled `src/bpf/connect.bpf.c`, whose names are used below.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/connect.bpf.o");

/// The function that fentry hooks into, and the name of its LSM hook.
const FUNCTION: &str = "security_socket_connect";
const LSM_HOOK: &str = "socket_connect";

const LOAD: &str = "its program cannot be loaded";
const ATTACH: &str = "its program cannot be attached";

/// The end of a verifier's log says what is wrong; so much of it is logged.
const VERIFIER_LOG: usize = 2000;

/// What is attached. Dropped, it is detached: the kernel keeps a program as long
/// as it has links, and a link as long as it has descriptors.
#[derive(Debug)]
#[expect(dead_code, reason = "held for what dropping it does")]
pub enum Attached {
    /// To the LSM hook.
    Lsm(LsmLink),
    /// To the function.
    Fentry(FEntryLink),
    /// To connect4 and connect6 of a cgroup.
    Cgroup([CgroupSockAddrLink; 2]),
}

/// The maps that the programs share with sockwatch.
pub struct Maps {
    /// The records.
    pub ring: Ring,
    /// The ring's map. Until a program is loaded it knows its maps by the numbers
    /// of these descriptors.
    _records: MapData,
    /// How many found it full, counted for each CPU.
    pub lost: PerCpuArray<MapData, u64>,
    /// The process whose connects are left out; 0 for none.
    pub own: Array<MapData, u32>,
}

/// The programs, none of them in the kernel yet.
pub struct Programs {
    ebpf: Ebpf,
    /// Or why there is none.
    btf: Result<Btf, String>,
    /// What the machine tells of itself.
    facts: Facts,
}

impl Programs {
    /// Reads the object, fits it to the running kernel and makes its maps.
    ///
    /// # Errors
    /// What keeps every hook from being had, as `hook`'s.
    pub fn load(setup: Setup, hook: Origin) -> Result<(Programs, Maps), Tried> {
        let facts = Facts::read();
        let ring_bytes = Ring::size(setup.ring_bytes);
        // Declared before the loader, which borrows it.
        let mut btf;
        // The loader reads the kernel's BTF by itself and does not lend it out; its
        // copy goes before ours is made.
        let mut loader = EbpfLoader::new();
        loader.btf(None).map_max_entries("records", ring_bytes);
        btf = if setup.btf {
            Btf::from_sys_fs().map_err(|error| format!("no BTF of the kernel: {}", chain(&error)))
        } else {
            Err("BTF is not used".to_string())
        };
        let mut unfit = None;
        let loaded = match loader.btf(btf.as_ref().ok()).load(OBJECT) {
            // Without BTF there is still the cgroup hook.
            Err(error) if btf.is_ok() && !matches!(error, EbpfError::MapError(_)) => {
                unfit = Some(format!(
                    "the BTF of the kernel does not fit: {}",
                    chain(&error)
                ));
                loader.btf(None).load(OBJECT)
            }
            loaded => loaded,
        };
        drop(loader);
        if let Some(reason) = unfit {
            btf = Err(reason);
        }
        let step = "its maps cannot be made";
        let mut ebpf = loaded.map_err(|error| explained(&facts, hook, step, &error))?;
        let maps = Maps::take(&mut ebpf, ring_bytes)
            .map_err(|error| explained(&facts, hook, step, &*error))?;
        Ok((Programs { ebpf, btf, facts }, maps))
    }

    /// Attaches a hook. What is attached but cannot tell everything says so in a
    /// second answer.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn attach(&mut self, hook: Origin) -> Result<(Attached, Option<Tried>), Tried> {
        match hook {
            Origin::Lsm => {
                if let Some(tried) = self.facts.no_bpf_lsm() {
                    return Err(tried);
                }
                self.lsm().map(|link| (Attached::Lsm(link), None))
            }
            Origin::Fentry => self.fentry().map(|link| (Attached::Fentry(link), None)),
            Origin::Cgroup => {
                let (links, shortcoming) = self.cgroup()?;
                Ok((Attached::Cgroup(links), shortcoming))
            }
            Origin::SockDiag => Err(Tried {
                hook,
                reason: "it is not a hook".to_string(),
                remedy: None,
            }),
        }
    }

    fn lsm(&mut self) -> Result<LsmLink, Tried> {
        let Programs { ebpf, btf, facts } = self;
        let hook = Origin::Lsm;
        let btf = btf.as_ref().map_err(|reason| no_btf(hook, reason))?;
        let program: &mut Lsm = named(ebpf, "lsm_connect", hook)?;
        program
            .load(LSM_HOOK, btf)
            .map_err(|error| explained(facts, hook, LOAD, &error))?;
        program
            .attach()
            .and_then(|link| program.take_link(link))
            .map_err(|error| explained(facts, hook, ATTACH, &error))
    }

    fn fentry(&mut self) -> Result<FEntryLink, Tried> {
        let Programs { ebpf, btf, facts } = self;
        let hook = Origin::Fentry;
        let btf = btf.as_ref().map_err(|reason| no_btf(hook, reason))?;
        let program: &mut FEntry = named(ebpf, "fentry_connect", hook)?;
        program
            .load(FUNCTION, btf)
            .map_err(|error| explained(facts, hook, LOAD, &error))?;
        program
            .attach()
            .and_then(|link| program.take_link(link))
            .map_err(|error| explained(facts, hook, ATTACH, &error))
    }

    /// With BTF where that works, else without.
    fn cgroup(&mut self) -> Result<([CgroupSockAddrLink; 2], Option<Tried>), Tried> {
        let hook = Origin::Cgroup;
        let root = mounts::cgroup2().map_err(|error| Tried {
            hook,
            reason: format!("the root of cgroup v2 cannot be opened: {error}"),
            remedy: Some("mount cgroup2, for example at /sys/fs/cgroup"),
        })?;
        let blind = match &self.btf {
            Err(reason) => reason.clone(),
            Ok(_) => match self.both(["detailed_connect4", "detailed_connect6"], &root) {
                Ok(links) => return Ok((links, partial(&root))),
                Err(tried) => tried.reason,
            },
        };
        let links = self.both(["plain_connect4", "plain_connect6"], &root)?;
        let shortcoming = partial(&root).unwrap_or_else(|| Tried {
            hook,
            reason: format!(
                "it cannot tell other network namespaces apart, nor MPTCP from TCP: {blind}"
            ),
            remedy: None,
        });
        Ok((links, Some(shortcoming)))
    }

    fn both(&mut self, names: [&str; 2], root: &Cgroup) -> Result<[CgroupSockAddrLink; 2], Tried> {
        let Programs { ebpf, facts, .. } = self;
        let hook = Origin::Cgroup;
        let mut attach = |name| {
            let program: &mut CgroupSockAddr = named(ebpf, name, hook)?;
            program
                .load()
                .map_err(|error| explained(facts, hook, LOAD, &error))?;
            // A link leaves room for others whatever the mode, and takes no other.
            program
                .attach(&root.directory, CgroupAttachMode::Single)
                .and_then(|link| program.take_link(link))
                .map_err(|error| explained(facts, hook, ATTACH, &error))
        };
        Ok([attach(names[0])?, attach(names[1])?])
    }
}

impl Maps {
    fn take(ebpf: &mut Ebpf, ring_bytes: u32) -> Result<Maps, Box<dyn Error>> {
        let mut map = |name: &str| {
            ebpf.take_map(name).ok_or_else(|| MapError::InvalidName {
                name: name.to_string(),
            })
        };
        let Map::RingBuf(records) = map("records")? else {
            return Err("the map of the records is no ring".into());
        };
        let fd = records.fd().as_fd().try_clone_to_owned()?;
        Ok(Maps {
            ring: Ring::new(fd, ring_bytes as usize)?,
            _records: records,
            lost: PerCpuArray::<MapData, u64>::try_from(map("lost")?)?,
            own: Array::<MapData, u32>::try_from(map("own")?)?,
        })
    }
}

/// A program of the object. That it is there, a test of each build proves.
fn named<'a, P>(ebpf: &'a mut Ebpf, name: &str, hook: Origin) -> Result<&'a mut P, Tried>
where
    &'a mut P: TryFrom<&'a mut Program>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| Tried {
            hook,
            reason: format!("the object holds no program {name} for it"),
            remedy: None,
        })
}

/// Why there is no point in trying a hook that needs BTF.
fn no_btf(hook: Origin, reason: &str) -> Tried {
    Tried {
        hook,
        reason: reason.to_string(),
        remedy: Some("use a kernel built with CONFIG_DEBUG_INFO_BTF"),
    }
}

/// What the cgroup hook misses where the root is not to be had.
fn partial(root: &Cgroup) -> Option<Tried> {
    (!root.root).then(|| Tried {
        hook: Origin::Cgroup,
        reason: format!(
            "{} is not the root of cgroup v2: processes outside of it are not seen",
            root.path.display()
        ),
        remedy: Some("run sockwatch outside of containers"),
    })
}

/// A failure in words. Those of aya hold the verifier's whole log, which goes to
/// the debug log alone, and of that the end.
fn explained(facts: &Facts, hook: Origin, step: &str, error: &(dyn Error + 'static)) -> Tried {
    if let Some(ProgramError::LoadError { verifier_log, .. }) = error.downcast_ref() {
        let text = verifier_log.to_string();
        let mut from = text.len().saturating_sub(VERIFIER_LOG);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        if !text.is_empty() {
            log::debug!("{}: the verifier said: {}", hook.as_str(), &text[from..]);
        }
    }
    match causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()) {
        Some(error) => facts.explain(hook, step, error),
        None => Tried {
            hook,
            reason: format!("{step}: {}", chain(error)),
            remedy: None,
        },
    }
}

/// An error and its causes, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    causes(error)
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

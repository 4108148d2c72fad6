//! Every connect() on a TCP socket, told by the kernel: a BPF program writes a
//! record into a ring, and [`Connects`] reads it.
//!
//! There are three places to hook in, and which of them a kernel offers is known
//! only when it has been tried. So [`Connects::open`] tries them, best first, and
//! believes none before it has shown a connect() of sockwatch's own. Why a better
//! one failed is returned in words that help.
//!
//! Built without the feature `bpf` there is no hook at all, and this says so.

#[cfg(not(feature = "bpf"))]
mod absent;
#[cfg(feature = "bpf")]
mod hooks;
#[cfg(feature = "bpf")]
mod mounts;
#[cfg(feature = "bpf")]
mod reasons;
#[cfg(feature = "bpf")]
mod ring;

#[cfg(not(feature = "bpf"))]
pub use absent::Connects;
#[cfg(feature = "bpf")]
pub use ring::Connects;

use crate::model::Origin;

/// A hook that was tried and is not used, or not fully.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tried {
    /// Which.
    pub hook: Origin,
    /// What failed. Made of sockwatch's and the kernel's words, one line.
    pub reason: String,
    /// What would help, where anything would.
    pub remedy: Option<&'static str>,
}

/// How a hook is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setup {
    /// How many bytes the ring has at least: rings are powers of two, of a page or
    /// more. A record takes 96.
    pub ring_bytes: u32,
    /// Whether the kernel's BTF is used where there is some. Without it there is
    /// the `cgroup` hook alone, which then knows neither other network namespaces
    /// nor MPTCP.
    pub btf: bool,
}

impl Default for Setup {
    /// Room for 43,690 records: a burst of 20,000 connects that nobody reads, and
    /// as many of everybody else's.
    fn default() -> Setup {
        Setup {
            ring_bytes: 4 << 20,
            btf: true,
        }
    }
}

/// The hooks that a BPF program can have, best first.
const HOOKS: [Origin; 3] = [Origin::Lsm, Origin::Fentry, Origin::Cgroup];

/// Those to try: all, or the one that is forced.
fn candidates(forced: Option<Origin>) -> impl Iterator<Item = Origin> {
    HOOKS
        .into_iter()
        .filter(move |hook| forced.is_none_or(|forced| forced == *hook))
}

//! What stands for the hooks in a build without them.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use super::{Tried, candidates};
use crate::model::{Connect, Origin};
use crate::stats::Stats;

/// No ring: this build has no hooks, so there is never a value of this type.
#[derive(Debug)]
pub struct Connects(Infallible);

impl Connects {
    /// Says of every hook that it is not built in.
    pub fn open(forced: Option<Origin>, _: Rc<Stats>) -> (Option<Connects>, Vec<Tried>) {
        let tried = candidates(forced).map(|hook| Tried {
            hook,
            reason: "BPF is not built in".to_string(),
            remedy: Some("build sockwatch with its feature `bpf`"),
        });
        (None, tried.collect())
    }

    /// The hook that is in place.
    pub fn origin(&self) -> Origin {
        match self.0 {}
    }

    /// Hands out what the ring holds.
    ///
    /// # Errors
    /// None: there is no ring.
    pub fn drain(&mut self, _: usize, _: &mut dyn FnMut(Connect)) -> io::Result<bool> {
        match self.0 {}
    }

    /// Whether records are kept back.
    pub fn blocked(&self) -> bool {
        match self.0 {}
    }

    /// How far the hook has come.
    pub fn mark(&self) -> usize {
        match self.0 {}
    }

    /// Whether everything before a mark has been handed out.
    pub fn has_passed(&self, _: usize) -> bool {
        match self.0 {}
    }

    /// How far it has been read.
    pub fn position(&self) -> usize {
        match self.0 {}
    }

    /// The records that were lost.
    ///
    /// # Errors
    /// None: there is no ring.
    pub fn take_lost(&mut self) -> io::Result<u64> {
        match self.0 {}
    }
}

impl AsRawFd for Connects {
    fn as_raw_fd(&self) -> RawFd {
        match self.0 {}
    }
}

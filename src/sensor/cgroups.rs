//! The cgroups that sockets belong to, each once, however many sockets it has.
//!
//! The kernel tells an id of 64 bits in every row. A socket keeps the one that it
//! was made in for as long as it lives, whichever cgroup its processes are moved
//! to meanwhile, so only a new row is looked at.

use std::collections::HashMap;
use std::rc::Rc;

use crate::model::Cgroup;

/// So many are kept before those without a socket are looked for.
const FEW: usize = 64;

/// The cgroups of one namespace's sockets, and some that no socket has any more.
#[derive(Debug)]
pub(super) struct Cgroups {
    known: HashMap<u64, Rc<Cgroup>>,
    /// How many there may be before those without a socket are forgotten.
    until: usize,
    /// Met since somebody last took them.
    met: Vec<Rc<Cgroup>>,
}

impl Default for Cgroups {
    fn default() -> Cgroups {
        Cgroups {
            known: HashMap::new(),
            until: FEW,
            met: Vec::new(),
        }
    }
}

impl Cgroups {
    /// The one with this id, shared by all its sockets; id 0 is none.
    pub fn of(&mut self, id: u64) -> Option<Rc<Cgroup>> {
        if id == 0 {
            return None;
        }
        if let Some(known) = self.known.get(&id) {
            return Some(Rc::clone(known));
        }
        if self.known.len() >= self.until {
            self.known.retain(|_, known| Rc::strong_count(known) > 1);
            self.known.shrink_to(self.known.len() * 2);
            self.until = (self.known.len() * 2).max(FEW);
        }
        let cgroup = Rc::new(Cgroup::new(id));
        self.known.insert(id, Rc::clone(&cgroup));
        self.met.push(Rc::clone(&cgroup));
        Some(cgroup)
    }

    /// Those met since the last call.
    pub fn take_met(&mut self) -> Vec<Rc<Cgroup>> {
        std::mem::take(&mut self.met)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_share_what_is_known_of_their_cgroup() {
        let mut cgroups = Cgroups::default();
        assert_eq!(cgroups.of(0), None);
        let one = cgroups.of(7).expect("it has an id");
        let other = cgroups.of(7).expect("it has an id");
        assert!(Rc::ptr_eq(&one, &other));
        assert_eq!(cgroups.take_met().len(), 1);
        assert!(cgroups.take_met().is_empty());
    }

    #[test]
    fn what_comes_and_goes_leaves_nothing() {
        let mut cgroups = Cgroups::default();
        let kept = cgroups.of(1);
        for id in 2..100_000 {
            cgroups.of(id);
            cgroups.take_met();
        }
        assert!(cgroups.known.len() <= FEW, "{}", cgroups.known.len());
        assert!(Rc::ptr_eq(&kept.unwrap(), &cgroups.of(1).unwrap()));
    }
}

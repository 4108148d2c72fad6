//! The cgroups of a printed table, each looked up once. Nothing else goes on
//! meanwhile, so the tree is read right here.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::enrich::cgroups::Tree;
use crate::model::{Cgroup, CgroupUnknown, Who};
use crate::table::Entry;

/// How long all rows together wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// The cgroups that rows belong to.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    known: HashMap<u64, Rc<Who>>,
    /// The last one: rows that stand beside each other often share it.
    last: Option<(u64, Rc<Who>)>,
}

impl Cgroups {
    /// Notes the cgroup of a socket; id 0 is none.
    pub fn note(&mut self, entry: &mut Entry, id: u64) {
        if id == 0 {
            return;
        }
        if let Some((last, who)) = &self.last
            && *last == id
        {
            return entry.set_who(Rc::clone(who));
        }
        let who = self.known.entry(id).or_insert_with(|| {
            Rc::new(Who {
                cgroup: Some(Rc::new(Cgroup::new(id))),
                ..Who::default()
            })
        });
        self.last = Some((id, Rc::clone(who)));
        entry.set_who(Rc::clone(who));
    }

    /// Finds the paths of all of them; the rows know them then.
    pub fn look_up(&self) {
        let until = Instant::now() + PATIENCE;
        let mut tree = Tree::mounted();
        if let Err(error) = &tree {
            log::debug!("cgroups: no cgroup2 to be read: {error}");
        }
        for cgroup in self.known.values().filter_map(|who| who.cgroup.as_ref()) {
            cgroup.learn(match &mut tree {
                Ok(_) if Instant::now() >= until => Err(CgroupUnknown::Timeout),
                Ok(tree) => tree.find(cgroup.id()).map(Into::into),
                Err(_) => Err(CgroupUnknown::NotMounted),
            });
        }
    }
}

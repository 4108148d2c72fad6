//! The cgroups of a printed table, each looked up once. Nothing else goes on
//! meanwhile, so the tree is read right here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::enrich::cgroups::Tree;
use crate::model::{CgroupAnswer, CgroupInfo, CgroupUnknown, Placed, Row};

/// How long all rows together wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of cgroups, by id.
#[derive(Debug, Default)]
pub(super) struct Places(HashMap<u64, CgroupAnswer>);

impl Places {
    /// Finds these; id 0 is none.
    pub fn find(ids: impl Iterator<Item = u64>) -> Places {
        let mut last = 0;
        // Rows that stand beside each other often share theirs.
        let ids = ids.filter(|id| std::mem::replace(&mut last, *id) != *id && *id != 0);
        let ids: HashSet<u64> = ids.collect();
        if ids.is_empty() {
            return Places::default();
        }
        let until = Instant::now() + PATIENCE;
        let mut tree = Tree::mounted();
        if let Err(error) = &tree {
            log::debug!("cgroups: no cgroup2 to be read: {error}");
        }
        let mut find = |id| match &mut tree {
            Ok(_) if Instant::now() >= until => Err(CgroupUnknown::Timeout),
            Ok(tree) => tree.find(id).map(Into::into),
            Err(_) => Err(CgroupUnknown::NotMounted),
        };
        Places(ids.into_iter().map(|id| (id, find(id))).collect())
    }

    /// The same that shares nothing with this, for another thread.
    pub fn apart(&self) -> Places {
        let apart = |answer: &CgroupAnswer| {
            let info = answer.as_ref().map_err(|why| *why)?;
            Ok(Arc::new(CgroupInfo::clone(info)))
        };
        let each = self.0.iter();
        Places(each.map(|(id, answer)| (*id, apart(answer))).collect())
    }

    /// Where a socket belongs.
    pub fn of(&self, row: &Row) -> Placed {
        match self.0.get(&row.cgroup) {
            None => Placed::nowhere(row.owner.into()),
            Some(answer) => Placed {
                id: Some(row.cgroup),
                cgroup: answer.clone(),
            },
        }
    }
}

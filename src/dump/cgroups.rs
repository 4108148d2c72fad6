//! The cgroups of a printed table, each looked up once. Nothing else is done by
//! the thread that prints, so the tree is read right there.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use crate::enrich::cgroups::Tree;
use crate::model::{CgroupAnswer, CgroupUnknown, Placed, Row};

/// How long all of them together may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of cgroups, by id.
#[derive(Debug, Default)]
pub(super) struct Places {
    known: HashMap<u64, CgroupAnswer>,
    /// That of the row before: rows that stand beside each other often share
    /// theirs.
    last: Option<(u64, CgroupAnswer)>,
    /// Opened when it is first needed.
    tree: Option<io::Result<Tree>>,
    spent: Duration,
}

impl Places {
    /// Where a socket belongs.
    pub fn of(&mut self, row: &Row) -> Placed {
        let id = row.cgroup;
        if id == 0 {
            return Placed::nowhere(row.owner.into());
        }
        let cgroup = match &self.last {
            Some((last, answer)) if *last == id => answer.clone(),
            _ => {
                let answer = self.find(id);
                self.last = Some((id, answer.clone()));
                answer
            }
        };
        Placed {
            id: Some(id),
            cgroup,
        }
    }

    fn find(&mut self, id: u64) -> CgroupAnswer {
        if let Some(answer) = self.known.get(&id) {
            return answer.clone();
        }
        let begun = Instant::now();
        let tree = self.tree.get_or_insert_with(|| {
            Tree::mounted().inspect_err(|error| {
                log::debug!("cgroups: no cgroup2 to be read: {error}");
            })
        });
        let answer = match tree {
            Ok(_) if self.spent >= PATIENCE => Err(CgroupUnknown::Timeout),
            Ok(tree) => tree.find(id).map(Into::into),
            Err(_) => Err(CgroupUnknown::NotMounted),
        };
        self.spent += begun.elapsed();
        self.known.insert(id, answer.clone());
        answer
    }
}

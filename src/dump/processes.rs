//! The processes of a printed table. Nothing else goes on meanwhile, so /proc is
//! read right here.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::enrich::processes::{Scanner, Want};
use crate::enrich::users::Passwd;
use crate::model::{Attribution, Owner, ProcessUnknown, SocketData};

/// How long all rows together wait.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one turn of the search may take.
const TURN: Duration = Duration::from_secs(1);

/// Finds out who has each socket open, and whose it is by name.
pub(super) fn look_up(rows: &mut [SocketData]) {
    let found = scan(rows);
    let mut users = Passwd::default();
    for data in rows {
        data.holders = Some(match data.owner {
            Owner::Unknown(why) => Attribution::Unknown(why.into()),
            Owner::Known { uid, inode } => {
                data.user = users.name(uid);
                let late = Attribution::Unknown(ProcessUnknown::Timeout);
                found.get(&inode).cloned().unwrap_or(late)
            }
        });
    }
}

/// The answers by inode, as far as they are to be had in time.
fn scan(rows: &[SocketData]) -> HashMap<u32, Attribution> {
    let mut found = HashMap::with_capacity(rows.len());
    let mut wants = Vec::with_capacity(rows.len());
    for data in rows {
        match data.owner {
            Owner::Known { inode: 0, .. } => {
                found.insert(0, Attribution::Unknown(ProcessUnknown::Kernel));
            }
            Owner::Known { inode, uid } => wants.push(Want {
                inode,
                uid: Some(uid),
                since: 1,
            }),
            Owner::Unknown(_) => {}
        }
    }
    let asked = wants.len();
    let mut scanner = Scanner::new(Path::new("/proc"), false, Passwd::default());
    let until = Instant::now() + PATIENCE;
    let mut turn = 0;
    while !wants.is_empty() && Instant::now() < until {
        turn += 1;
        found.extend(scanner.scan(&wants, turn, TURN).answers);
        wants.retain(|want| !found.contains_key(&want.inode));
    }
    if !wants.is_empty() {
        log::warn!(
            "{} of {asked} sockets had no answer from /proc within {} s; their rows have no process",
            wants.len(),
            PATIENCE.as_secs()
        );
    }
    found
}

//! Rows that pass: as they were read, and where they are kept when something has to
//! be found out of all of them before they can be printed.

use super::cgroups::Places;
use crate::model::{Host, HostUnknown, Netns, Row, SocketData, SocketKey};
use crate::table::{Keyed, Table};

/// A row as it was read.
#[derive(Debug)]
pub(super) struct Kept {
    /// The row.
    pub row: Row,
    /// The namespace it is of.
    pub netns: Netns,
    /// The number of the dump that had it.
    pub dump: u32,
}

impl Keyed for Kept {
    fn key(&self) -> SocketKey {
        SocketKey::new(self.netns, self.row.cookie)
    }
}

impl Kept {
    /// It as a row that is shown.
    pub fn data(&self, places: &mut Places) -> SocketData {
        SocketData {
            action: None,
            id: self.row.id,
            wiped: false,
            host: Host::Unknown(HostUnknown::NotApplicable),
            state: self.row.state,
            direction: None,
            cookie: self.row.cookie,
            netns: self.netns,
            netns_name: None,
            owner: self.row.owner,
            user: None,
            process: None,
            holders: None,
            cmdline: false,
            cgroup: Some(places.of(&self.row)),
            between_ticks: false,
            closed_first: None,
            life: None,
            traffic: None,
        }
    }
}

/// The rows of all dumps, each socket once.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Full sockets and minisockets.
    tables: [Table<Kept>; 2],
}

impl Rows {
    /// Puts rows away; none are left.
    pub fn put(&mut self, kept: &mut Vec<Kept>) {
        for kept in kept.drain(..) {
            let table = &mut self.tables[kept.row.kind as usize];
            // A dump under churn can hold a row twice.
            if table.find(kept.key()).is_none() {
                table.insert(kept);
            }
        }
    }

    /// Takes out the rows of a dump that failed.
    pub fn forget(&mut self, dump: u32) {
        for table in &mut self.tables {
            let read = table.iter().filter(|kept| kept.dump == dump);
            let read: Vec<SocketKey> = read.map(Kept::key).collect();
            for key in read {
                table.remove(key);
            }
        }
    }

    /// All of them as they are shown.
    pub fn into_data(self) -> Vec<SocketData> {
        let mut places = Places::default();
        let all = self.tables.iter().flat_map(Table::iter);
        all.map(|kept| kept.data(&mut places)).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{Cookie, Family, Owner, Proto, RowKind, SockId, TcpState};

    pub fn kept(cookie: u64, dump: u32, kind: RowKind) -> Kept {
        let end = |port| ("10.0.0.1".parse().unwrap(), port);
        Kept {
            row: Row {
                cookie: Cookie(cookie),
                id: SockId::from_wire(Proto::Tcp, Family::V4, end(cookie as u16), end(80), 0),
                state: TcpState::Established,
                kind,
                owner: Owner::Known { uid: 1, inode: 2 },
                cgroup: 0,
            },
            netns: Netns(1),
            dump,
        }
    }

    /// Two dumps, of which the second one may fail.
    #[test]
    fn each_socket_once() {
        for (fails, count) in [(false, 9090), (true, 6060)] {
            let mut rows = Rows::default();
            for (dump, range) in [(1, 0..6000), (2, 5000..9000)] {
                for cookie in range {
                    let mut read = vec![kept(cookie, dump, RowKind::Full)];
                    if cookie % 100 == 0 {
                        read.push(kept(cookie, dump, RowKind::Mini));
                    }
                    rows.put(&mut read);
                    assert!(read.is_empty());
                }
            }
            if fails {
                rows.forget(2);
            }
            let data = rows.into_data();
            assert_eq!(data.len(), count);
            let last = if fails { 5999 } else { 8999 };
            assert!(data.iter().all(|row| row.cookie.0 <= last));
        }
    }
}

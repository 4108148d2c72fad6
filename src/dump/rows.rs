//! Where the rows of all dumps are kept until they can be printed.
//!
//! Most of the time of a dump is the kernel's, in the reading thread. So from a
//! number of rows on another thread puts them away, and what that costs, page
//! faults included, goes on beside the reading.

use std::sync::mpsc::{self, SyncSender};
use std::thread::{self, JoinHandle};

use super::cgroups::Places;
use crate::model::{Host, HostUnknown, Netns, Row, SocketData, SocketKey};
use crate::table::{Keyed, Table};

/// So many rows are put away before there is a thread for it.
const ALONE: usize = 4096;
/// How many datagrams may wait to be put away.
const WAITING: usize = 64;

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
    /// It as a row that is shown; of the paths of cgroups these are known.
    pub fn data(&self, places: &Places) -> SocketData {
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

/// The rows, each socket once.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Full sockets and minisockets.
    tables: [Table<Kept>; 2],
    places: Places,
}

impl Rows {
    /// Puts rows away.
    pub fn put(&mut self, kept: Vec<Kept>) {
        for kept in kept {
            let table = &mut self.tables[kept.row.kind as usize];
            // A dump under churn can hold a row twice.
            if table.find(kept.key()).is_none() {
                table.insert(kept);
            }
        }
    }

    fn forget(&mut self, dump: u32) {
        for table in &mut self.tables {
            let read = table.iter().filter(|kept| kept.dump == dump);
            let read: Vec<SocketKey> = read.map(Kept::key).collect();
            for key in read {
                table.remove(key);
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tables.iter().map(Table::len).sum()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = SocketData> + Clone {
        let all = self.tables.iter().flat_map(Table::iter);
        all.map(|kept| kept.data(&self.places))
    }

    /// Finds the paths of all their cgroups.
    pub fn find_cgroups(&mut self) {
        let all = self.tables.iter().flat_map(Table::iter);
        self.places = Places::find(all.map(|kept| kept.row.cgroup));
    }

    /// What is known of these.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// All of them in the same order, in pieces of at most a thousand or so.
    pub fn pieces(&self) -> impl Iterator<Item = &[Kept]> {
        self.tables.iter().flat_map(Table::pieces)
    }
}

/// What the other thread is told.
#[derive(Debug)]
enum Order {
    Begin(Rows),
    Put(Vec<Kept>),
    Forget(u32),
}

/// The thread that puts rows away, and hands them over at its end.
#[derive(Debug)]
struct Beside {
    orders: SyncSender<Order>,
    thread: JoinHandle<Rows>,
}

impl Beside {
    /// None where there is no thread to be had.
    fn begin() -> Option<Beside> {
        let (orders, heard) = mpsc::sync_channel(WAITING);
        let put_away = move || {
            let mut rows = Rows::default();
            for order in heard {
                match order {
                    Order::Begin(with) => rows = with,
                    Order::Put(kept) => rows.put(kept),
                    Order::Forget(dump) => rows.forget(dump),
                }
            }
            rows
        };
        let thread = thread::Builder::new().spawn(put_away).ok()?;
        Some(Beside { orders, thread })
    }

    fn tell(&self, order: Order) {
        self.orders
            .send(order)
            .expect("the other thread listens for as long as this one may speak");
    }

    fn end(self) -> Rows {
        drop(self.orders);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Who puts rows away.
#[derive(Debug)]
pub(super) struct Shelf {
    /// What was put away by whoever reads.
    rows: Rows,
    /// Who does it from now on.
    beside: Option<Beside>,
    /// At how many rows that begins.
    alone: usize,
}

impl Default for Shelf {
    fn default() -> Shelf {
        Shelf {
            rows: Rows::default(),
            beside: None,
            alone: ALONE,
        }
    }
}

impl Shelf {
    /// Puts rows away; none are left.
    pub fn put(&mut self, kept: &mut Vec<Kept>) {
        let room = Vec::with_capacity(kept.len());
        let kept = std::mem::replace(kept, room);
        if let Some(beside) = &self.beside {
            beside.tell(Order::Put(kept));
            return;
        }
        self.rows.put(kept);
        if self.rows.len() >= self.alone {
            self.beside = Beside::begin();
            match &self.beside {
                Some(beside) => beside.tell(Order::Begin(std::mem::take(&mut self.rows))),
                None => self.alone = usize::MAX,
            }
        }
    }

    /// Takes out the rows of a dump that failed.
    pub fn forget(&mut self, dump: u32) {
        match &self.beside {
            Some(beside) => beside.tell(Order::Forget(dump)),
            None => self.rows.forget(dump),
        }
    }

    /// All rows, when no more come.
    pub fn into_rows(self) -> Rows {
        self.beside.map_or(self.rows, Beside::end)
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

    /// The cookies on a shelf that is filled by many datagrams of two dumps, of
    /// which the second one may fail.
    fn cookies(mut shelf: Shelf, fails: bool) -> Vec<u64> {
        for (dump, range) in [(1, 0..6000), (2, 5000..9000)] {
            for cookie in range {
                let mut rows = vec![kept(cookie, dump, RowKind::Full)];
                if cookie % 100 == 0 {
                    rows.push(kept(cookie, dump, RowKind::Mini));
                }
                shelf.put(&mut rows);
                assert!(rows.is_empty());
            }
        }
        if fails {
            shelf.forget(2);
        }
        let rows = shelf.into_rows();
        let all: Vec<u64> = rows.iter().map(|row| row.cookie.0).collect();
        assert_eq!(all.len(), rows.len());
        let pieces = rows.pieces().flatten().map(|kept| kept.row.cookie.0);
        assert!(pieces.eq(all.iter().copied()));
        all
    }

    #[test]
    fn another_thread_keeps_what_this_one_would() {
        for fails in [false, true] {
            let alone = Shelf {
                alone: usize::MAX,
                ..Shelf::default()
            };
            let alone = cookies(alone, fails);
            assert_eq!(alone, cookies(Shelf::default(), fails));
            let at_once = Shelf {
                alone: 1,
                ..Shelf::default()
            };
            assert_eq!(alone, cookies(at_once, fails));
            assert_eq!(alone.len(), if fails { 6060 } else { 9090 });
        }
    }
}

//! The ledger: TCP opens that the kernel counted against sockets that account for
//! them.
//!
//! The kernel counts every connect() that sent a SYN and every child of a
//! listener. Each of them is a socket that sooner or later shows in a dump or in a
//! notice, so the two sums differ by a constant: what was opened before anybody
//! looked. The constant is not known exactly while sockets open, but it is
//! bounded from both sides, and the bounds meet whenever nothing opens for a
//! moment:
//!
//! * What was counted before a completed dump began has been seen since, so the
//!   constant is at least that count less what is accounted for now.
//! * What was accounted for at the last look has been counted by now, so it is at
//!   most the count now less that.
//!
//! Where the first bound exceeds the second, sockets opened and ended without a
//! trace: their notices were lost. Notices that are late make the first bound too
//! great for a while, never the second one; so the first is always the newest, and
//! the second the least there ever was.
//!
//! One socket that connects again after it failed is counted again by the kernel,
//! and here if its ends changed; one restored by TCP_REPAIR is not counted by the
//! kernel.

use crate::model::Family;

/// The sums of one namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ledger {
    /// The kernel's count before the dump under way began.
    began: Option<u64>,
    /// The same of the last dump that completed, of IPv4 and IPv6: where each
    /// family is dumped on its own, only what both have covered is.
    covered: [Option<u64>; 2],
    /// What was accounted for at the last look.
    before: Option<u64>,
    /// The least upper bound of the constant so far.
    most: Option<i128>,
}

impl Ledger {
    /// A dump of everything connected begins; the kernel has counted so many.
    pub fn dump_begins(&mut self, counted: Option<u64>) {
        self.began = counted;
    }

    /// It completed; it was one of this family, or of both.
    pub fn dump_completed(&mut self, family: Option<Family>) {
        let began = self.began.take();
        for one in Family::ALL {
            if family.is_none_or(|family| family == one) {
                let covered = &mut self.covered[one as usize];
                *covered = began.or(*covered);
            }
        }
    }

    /// What was counted before the dumps that have covered everything began.
    fn covered(&self) -> Option<u64> {
        let [v4, v6] = self.covered;
        Some(v4?.min(v6?))
    }

    /// It came to nothing.
    pub fn dump_failed(&mut self) {
        self.began = None;
    }

    /// A look at both sums: `counted` by the kernel and `accounted` for here, the
    /// latter taken first.
    pub fn look(&mut self, counted: u64, accounted: u64) {
        // Before the first dump has completed nothing is accounted for in full.
        if self.covered().is_none() {
            return;
        }
        if let Some(before) = self.before {
            let most = i128::from(counted) - i128::from(before);
            self.most = Some(self.most.map_or(most, |known| known.min(most)));
        }
        self.before = Some(accounted);
    }

    /// How many opens nothing accounts for, as far as is known by now; `None`
    /// before there is anything to compare with.
    pub fn unaccounted(&self, accounted: u64) -> Option<u64> {
        let least = i128::from(self.covered()?) - i128::from(accounted);
        u64::try_from((least - self.most?).max(0)).ok()
    }

    /// So many are explained now: a gap record has told of them.
    pub fn explain(&mut self, unseen: u64) {
        if let Some(most) = &mut self.most {
            *most += i128::from(unseen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_lost_is_known_to_the_last_one() {
        let mut ledger = Ledger::default();
        // 40 had been opened before the start, of which 3 are still open.
        ledger.dump_begins(Some(40));
        ledger.dump_completed(None);
        ledger.look(40, 3);
        assert_eq!(ledger.unaccounted(3), None);
        ledger.look(40, 3);
        assert_eq!(ledger.unaccounted(3), Some(0));
        // Ten more, of which seven are heard of.
        ledger.dump_begins(Some(50));
        ledger.dump_completed(None);
        assert_eq!(ledger.unaccounted(10), Some(3));
        ledger.explain(3);
        assert_eq!(ledger.unaccounted(10), Some(0));
    }

    #[test]
    fn a_dump_that_failed_covers_nothing() {
        let mut ledger = Ledger::default();
        ledger.dump_begins(Some(5));
        ledger.dump_failed();
        ledger.look(5, 0);
        ledger.look(5, 0);
        assert_eq!(ledger.unaccounted(0), None);
    }

    /// Where families are dumped one by one, what was counted between the two
    /// may be in neither.
    #[test]
    fn a_dump_of_one_family_covers_half() {
        let mut ledger = Ledger::default();
        let dump = |ledger: &mut Ledger, counted, family| {
            ledger.dump_begins(Some(counted));
            ledger.dump_completed(Some(family));
        };
        dump(&mut ledger, 40, Family::V4);
        ledger.look(40, 0);
        ledger.look(40, 0);
        assert_eq!(ledger.unaccounted(0), None, "IPv6 was not dumped yet");
        dump(&mut ledger, 40, Family::V6);
        ledger.look(40, 0);
        ledger.look(40, 0);
        assert_eq!(ledger.unaccounted(0), Some(0));
        // Three more, of IPv4, after it was dumped.
        dump(&mut ledger, 40, Family::V4);
        dump(&mut ledger, 43, Family::V6);
        assert_eq!(ledger.unaccounted(0), Some(0));
        dump(&mut ledger, 43, Family::V4);
        assert_eq!(ledger.unaccounted(3), Some(0));
        assert_eq!(ledger.unaccounted(1), Some(2));
    }

    proptest! {
        /// Whatever the order of opens, notices and looks: as long as nothing is
        /// lost nothing is unaccounted for once every notice has been heard, and
        /// never more than the notices that are on their way; what is lost is found
        /// to the last one when the machine is quiet.
        #[test]
        fn it_closes(
            early in 0_u64..50,
            steps in proptest::collection::vec((0_u64..5, any::<bool>(), any::<bool>()), 1..60),
            lost in 0_u64..20,
        ) {
            let mut ledger = Ledger::default();
            let (mut counted, mut accounted, mut on_the_way) = (early, 0, 0);
            for (opened, dump, hear) in steps {
                counted += opened;
                on_the_way += opened;
                if dump {
                    ledger.dump_begins(Some(counted));
                    // Half of them are still open, and read.
                    let read = on_the_way / 2;
                    accounted += read;
                    on_the_way -= read;
                    ledger.dump_completed(None);
                }
                if hear {
                    accounted += on_the_way;
                    on_the_way = 0;
                }
                if let Some(unaccounted) = ledger.unaccounted(accounted) {
                    prop_assert!(unaccounted <= on_the_way);
                }
                ledger.look(counted, accounted);
            }
            accounted += on_the_way;
            for _ in 0..2 {
                ledger.dump_begins(Some(counted));
                ledger.dump_completed(None);
                ledger.look(counted, accounted);
            }
            prop_assert_eq!(ledger.unaccounted(accounted), Some(0));
            counted += lost;
            ledger.dump_begins(Some(counted));
            ledger.dump_completed(None);
            prop_assert_eq!(ledger.unaccounted(accounted), Some(lost));
        }
    }
}

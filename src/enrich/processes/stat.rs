//! /proc/PID/stat (proc_pid_stat(5)), of which little is wanted.

use crate::model::Comm;

/// PF_KTHREAD (linux/sched.h).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What one line says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stat {
    /// Field 2. Longer names, which only kernel threads have, are cut.
    pub comm: Comm,
    /// Field 4; 0 where the parent is outside of the pid namespace.
    pub parent: u32,
    /// Field 22, in clock ticks since boot.
    pub started: u64,
    /// It has no descriptors and never will: a kernel thread, or a zombie.
    pub idle: bool,
}

/// Reads a line. The name stands in parentheses and may itself hold any of them
/// and white space, but what follows the last one is numbers and a letter.
pub(super) fn parse(line: &[u8]) -> Option<Stat> {
    let open = line.iter().position(|byte| *byte == b'(')?;
    let close = line.iter().rposition(|byte| *byte == b')')?;
    let name = line.get(open + 1..close)?;
    let mut comm = [0; 16];
    // TASK_COMM_LEN counts the NUL.
    let length = name.len().min(comm.len() - 1);
    comm.get_mut(..length)?.copy_from_slice(name.get(..length)?);

    let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
    let fields: Fields = rest.split_ascii_whitespace().collect();
    let number = |field: usize| fields.0[field - 3]?.parse::<u64>().ok();
    let state = fields.0[0]?;
    Some(Stat {
        comm: Comm(comm),
        parent: u32::try_from(number(4)?).ok()?,
        started: number(22)?,
        idle: number(9)? & KERNEL_THREAD != 0 || state == "Z" || state == "X",
    })
}

/// The fields from the third to the twenty-second.
struct Fields<'a>([Option<&'a str>; 20]);

impl<'a> FromIterator<&'a str> for Fields<'a> {
    fn from_iter<I: IntoIterator<Item = &'a str>>(words: I) -> Fields<'a> {
        let mut words = words.into_iter();
        Fields(std::array::from_fn(|_| words.next()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(name: &[u8], state: &str, flags: u64, started: u64) -> Vec<u8> {
        let mut line = b"7 (".to_vec();
        line.extend(name);
        line.extend(
            format!(") {state} 5 7 7 0 -1 {flags} 1 2 3 4 5 6 7 8 20 0 1 0 {started} 9 1 2 3\n")
                .bytes(),
        );
        line
    }

    #[test]
    fn own_line() {
        let stat = parse(&std::fs::read("/proc/self/stat").unwrap()).unwrap();
        let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(stat.comm.to_string(), comm.trim_end());
        assert_eq!(stat.parent, std::os::unix::process::parent_id());
        assert!(stat.started > 0 && !stat.idle);
    }

    #[test]
    fn those_that_never_hold_a_socket() {
        let idle = |state, flags| parse(&line(b"x", state, flags, 9)).unwrap().idle;
        assert!(idle("Z", 0x40_0000) && idle("X", 0) && idle("I", 0x0420_8040));
        assert!(!idle("S", 0x40_0000) && !idle("R", 0) && !idle("T", 0x40_0100));
        // A kernel worker's name is longer than a comm.
        let stat = parse(&line(b"kworker/0:1-events_power", "I", 0, 9)).unwrap();
        assert_eq!(stat.comm.bytes(), b"kworker/0:1-eve");
    }

    #[test]
    fn torn_lines_are_none() {
        let whole = line(b"a", "S", 0, 12345);
        let second = whole.windows(5).position(|five| five == b"12345").unwrap();
        for length in 0..second {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
        assert_eq!(parse(b"7 )x( S 1 2"), None);
        assert_eq!(parse(b"7 (x) S \xff 1"), None);
    }

    proptest! {
        /// A task can name itself as it likes, to look like the fields behind it.
        #[test]
        fn no_name_forges_a_field(
            name in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..16),
                "[() SZ0-9]{0,15}".prop_map(String::into_bytes),
            ],
            started in any::<u64>(),
        ) {
            let stat = parse(&line(&name, "S", 0, started)).unwrap();
            prop_assert_eq!(stat.started, started);
            prop_assert_eq!(stat.parent, 5);
            prop_assert!(!stat.idle);
            let kept = &name[..name.len().min(15)];
            let end = kept.iter().position(|byte| *byte == 0).unwrap_or(kept.len());
            prop_assert_eq!(stat.comm.bytes(), &kept[..end]);
        }

        #[test]
        fn no_line_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes);
        }
    }
}

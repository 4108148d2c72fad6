//! Where cgroup2 is mounted: /proc/self/mountinfo (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::order::by_number;

/// A mount of the cgroup2 hierarchy, or of a part of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mount {
    /// The directory of the hierarchy that is mounted, as the cgroup namespace
    /// shows it; empty where that is the whole.
    pub root: Vec<u8>,
    /// Where.
    pub point: PathBuf,
}

/// The mounts of cgroup2, those of the whole hierarchy first. In the hybrid
/// layout it is one among many (`/sys/fs/cgroup/unified`).
pub(super) fn parse(text: &[u8]) -> Vec<Mount> {
    let lines = text.split(|byte| *byte == b'\n');
    let mut mounts: Vec<Mount> = lines.filter_map(mount).collect();
    by_number(&mut mounts, |mount| u64::from(!mount.root.is_empty()));
    mounts
}

/// `id parent major:minor root point options [tag]… - type source options`.
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let root = unescaped(fields.nth(3)?);
    let point = unescaped(fields.next()?);
    fields.find(|field| *field == b"-")?;
    (fields.next()? == b"cgroup2").then(|| Mount {
        root: if root == b"/" { Vec::new() } else { root },
        point: PathBuf::from(OsString::from_vec(point)),
    })
}

/// The kernel writes space, tab, line feed and backslash as `\` and three octal
/// digits (mangle_path).
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, behind)) = rest.split_first() {
        let octal = |digits: &[u8]| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        };
        match behind.get(..3).and_then(octal) {
            Some(byte) if first == b'\\' => {
                plain.push(byte);
                rest = behind.get(3..).unwrap_or(&[]);
            }
            _ => {
                plain.push(first);
                rest = behind;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str) -> Vec<(String, String)> {
        parse(text.as_bytes())
            .into_iter()
            .map(|mount| {
                let root = String::from_utf8(mount.root).unwrap();
                (root, mount.point.to_str().unwrap().to_string())
            })
            .collect()
    }

    fn mount_at(root: &str, point: &str) -> (String, String) {
        (root.to_string(), point.to_string())
    }

    #[test]
    fn layouts() {
        let unified = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
            25 20 0:22 / /sys/fs/cgroup rw,nosuid shared:9 master:1 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(found(unified), [mount_at("", "/sys/fs/cgroup")]);
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(found(hybrid), [mount_at("", "/sys/fs/cgroup/unified")]);
        let container = "9 8 0:22 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n\
            10 8 0:22 / /host/cg ro - cgroup2 cgroup rw\n";
        assert_eq!(
            found(container),
            [
                mount_at("", "/host/cg"),
                mount_at("/docker/abc", "/sys/fs/cgroup")
            ]
        );
        let none = "41 31 0:38 / /a rw - tmpfs cgroup2 rw\n41 31 0:38 / /cgroup2 rw\n\n41 -";
        assert_eq!(found(none), []);
    }

    #[test]
    fn what_mangle_path_escapes() {
        let odd = "1 2 0:1 /a\\040b /x\\134040\\011\\012y\\04 rw - cgroup2 c rw";
        assert_eq!(found(odd), [mount_at("/a b", "/x\\040\t\ny\\04")]);
        assert_eq!(unescaped(b"\\777\\08a\\"), b"\\777\\08a\\");
    }

    #[test]
    fn own_table() {
        let text = std::fs::read("/proc/self/mountinfo").unwrap();
        let is_there = text.windows(11).any(|part| part == b" - cgroup2 ");
        assert_eq!(parse(&text).is_empty(), !is_there);
    }

    proptest! {
        #[test]
        fn no_table_panics(text in prop::collection::vec(any::<u8>(), 0..300)) {
            parse(&text);
        }

        #[test]
        fn escaping_is_undone(path in prop::collection::vec(1_u8.., 0..40)) {
            let mut mangled = Vec::new();
            for byte in &path {
                match byte {
                    b' ' | b'\t' | b'\n' | b'\\' => mangled.extend(format!("\\{byte:03o}").bytes()),
                    byte => mangled.push(*byte),
                }
            }
            prop_assert_eq!(unescaped(&mangled), path);
        }
    }
}

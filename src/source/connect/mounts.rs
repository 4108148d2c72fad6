//! Where cgroup v2 is mounted.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The inode of the root of cgroup v2: kernfs numbers from 1, and the root is the
/// first (fs/kernfs/dir.c).
const ROOT_INODE: u64 = 1;

/// A directory of cgroup v2.
#[derive(Debug)]
pub struct Cgroup {
    /// Open, to attach to.
    pub directory: File,
    /// Where it is.
    pub path: PathBuf,
    /// It is the root of the hierarchy: every process is in it or below.
    pub root: bool,
}

/// Opens the root of cgroup v2, or, where the mounts show a part of it alone (in
/// a container), the directory that is mounted.
///
/// # Errors
/// NotFound where none is mounted, else those of reading the mount table or
/// opening the directory.
pub fn cgroup2() -> io::Result<Cgroup> {
    let table = fs::read("/proc/thread-self/mountinfo")?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "cgroup v2 is not mounted");
    let mut part = None;
    for path in mounted(&table, b"cgroup2") {
        match open(&path) {
            Ok(cgroup) if cgroup.root => return Ok(cgroup),
            Ok(cgroup) => part = part.or(Some(cgroup)),
            Err(error) => last = error,
        }
    }
    part.ok_or(last)
}

fn open(path: &Path) -> io::Result<Cgroup> {
    let directory = File::open(path)?;
    let root = directory.metadata()?.ino() == ROOT_INODE;
    Ok(Cgroup {
        directory,
        path: path.to_owned(),
        root,
    })
}

/// The mount points of a type of file system, in the order of the table
/// (/proc/pid/mountinfo in proc(5): the fifth field is the mount point, and the
/// type follows a field that is a lone hyphen).
fn mounted(table: &[u8], wanted: &[u8]) -> Vec<PathBuf> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ');
            let path = fields.nth(4)?;
            fields.find(|field| *field == b"-")?;
            (fields.next()? == wanted).then(|| PathBuf::from(unescaped(path)))
        })
        .collect()
}

/// The text with `\ooo` turned back into the byte it stands for.
fn unescaped(text: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] if first == b'\\' => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_point_is_found_whatever_stands_around_it() {
        let table = b"\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 master:3 - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
33 22 0:27 /a\\040b /mnt/with\\040space\\134 rw - cgroup2 none rw
34 22 0:29 / /cgroup2 rw - tmpfs cgroup2 rw
cut short";
        assert_eq!(
            mounted(table, b"cgroup2"),
            [
                PathBuf::from("/sys/fs/cgroup/unified"),
                PathBuf::from("/mnt/with space\\")
            ]
        );
        assert!(mounted(b"", b"cgroup2").is_empty());
    }
}

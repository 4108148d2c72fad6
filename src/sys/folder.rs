//! Directories by descriptor: what /proc and cgroup2 are read through.
//!
//! A directory of /proc that is open stands for one process instance, not for
//! its number: the inode holds the kernel's `struct pid`, and everything read
//! relative to it fails with ESRCH or ENOENT once the process has been reaped,
//! whoever has its number by then. So what is read through one [`Folder`] is of
//! one process. (std::fs goes by path each time, and allocates for each entry.)

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes for one getdents64(2): some 800 entries of /proc.
const ROOM: usize = 32 << 10;

/// The longest name that a file can have, and its NUL.
const LONGEST: usize = 256;

/// linux/magic.h; libc has it for some targets.
const CGROUP2_SUPER_MAGIC: libc::__fsword_t = 0x6367_7270;

/// FILEID_KERNFS (linux/exportfs.h): a handle that is a kernfs node's id.
const FILEID_KERNFS: libc::c_int = 0xfe;

/// An open directory.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
}

/// One entry of a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item<'a> {
    /// The inode, as the file system numbers its entries.
    pub inode: u64,
    /// It is a directory (`DT_DIR`); where the file system does not tell, no.
    pub is_folder: bool,
    /// Its name.
    pub name: &'a [u8],
}

/// Memory for reading directories and small files; made once, used for many.
#[derive(Debug)]
pub struct Scratch {
    bytes: Box<[u8]>,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch {
            bytes: vec![0; ROOM].into_boxed_slice(),
        }
    }
}

impl Folder {
    /// Opens a directory by path.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(path: &Path) -> io::Result<Folder> {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(path)?;
        Ok(Folder { fd: file.into() })
    }

    /// Opens a directory within this one, to be listed.
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn child(&self, name: &[u8]) -> io::Result<Folder> {
        let fd = self.open_at(name, libc::O_RDONLY | libc::O_DIRECTORY)?;
        Ok(Folder { fd })
    }

    /// Opens a directory within this one, to reach what is in it. Takes no right
    /// to read it.
    ///
    /// # Errors
    /// Those of openat(2).
    pub fn pin(&self, name: &[u8]) -> io::Result<Folder> {
        let fd = self.open_at(name, libc::O_PATH | libc::O_DIRECTORY)?;
        Ok(Folder { fd })
    }

    fn open_at(&self, name: &[u8], flags: libc::c_int) -> io::Result<OwnedFd> {
        with_nul(name, |name| {
            // SAFETY: `name` ends in a NUL and lives across the call.
            let fd = unsafe {
                libc::openat(
                    self.fd.as_raw_fd(),
                    name.as_ptr(),
                    flags | libc::O_CLOEXEC | libc::O_NOFOLLOW,
                )
            };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: `fd` was just opened here and nobody else owns it.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        })
    }

    /// Begins again with the first entry.
    ///
    /// # Errors
    /// Those of lseek(2).
    pub fn rewind(&self) -> io::Result<()> {
        // SAFETY: lseek(2) takes no pointers.
        match unsafe { libc::lseek(self.fd.as_raw_fd(), 0, libc::SEEK_SET) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The next entries, some at a time, without `.` and `..`; none at the end.
    ///
    /// # Errors
    /// Those of getdents64(2): ENOENT when what the directory stood for is gone.
    pub fn next<'a>(&self, scratch: &'a mut Scratch) -> io::Result<Option<Items<'a>>> {
        let room = &mut scratch.bytes;
        // SAFETY: the buffer is writable for the length that is passed.
        let got = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                self.fd.as_raw_fd(),
                room.as_mut_ptr(),
                room.len(),
            )
        };
        match usize::try_from(got) {
            Err(_) => Err(io::Error::last_os_error()),
            Ok(0) => Ok(None),
            Ok(length) => Ok(Some(Items {
                rest: room.get(..length).unwrap_or(&[]),
            })),
        }
    }

    /// Where a symbolic link of this directory points, cut to the room there is.
    ///
    /// # Errors
    /// Those of readlinkat(2).
    pub fn link<'a>(&self, name: &[u8], room: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let length = with_nul(name, |name| {
            // SAFETY: `name` ends in a NUL, and the buffer is writable for the
            // length that is passed; both live across the call.
            let got = unsafe {
                libc::readlinkat(
                    self.fd.as_raw_fd(),
                    name.as_ptr(),
                    room.as_mut_ptr().cast(),
                    room.len(),
                )
            };
            usize::try_from(got).map_err(|_| io::Error::last_os_error())
        })?;
        Ok(room.get(..length).unwrap_or(&[]))
    }

    /// The beginning of a file in this directory, as much as one read(2) of the
    /// scratch memory gives. Files of /proc that fit come whole.
    ///
    /// # Errors
    /// Those of openat(2) and read(2).
    pub fn text<'a>(&self, name: &[u8], scratch: &'a mut Scratch) -> io::Result<&'a [u8]> {
        let fd = self.open_at(name, libc::O_RDONLY)?;
        let room = &mut scratch.bytes;
        // SAFETY: the buffer is writable for the length that is passed.
        let got = unsafe { libc::read(fd.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) };
        match usize::try_from(got) {
            Err(_) => Err(io::Error::last_os_error()),
            Ok(length) => Ok(room.get(..length).unwrap_or(&[])),
        }
    }

    /// The inode of this directory and the user id of its owner.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn identity(&self) -> io::Result<(u64, u32)> {
        // SAFETY: a stat64 of zeros is a valid one.
        let mut stat: libc::stat64 = unsafe { std::mem::zeroed() };
        // SAFETY: `stat` lives across the call, which writes to it alone.
        match unsafe { libc::fstat64(self.fd.as_raw_fd(), &raw mut stat) } {
            0 => Ok((stat.st_ino, stat.st_uid)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Whether it is of a cgroup2 file system.
    ///
    /// # Errors
    /// Those of fstatfs(2).
    pub fn is_cgroup2(&self) -> io::Result<bool> {
        // SAFETY: a statfs of zeros is a valid one.
        let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: `stat` lives across the call, which writes to it alone.
        match unsafe { libc::fstatfs(self.fd.as_raw_fd(), &raw mut stat) } {
            0 => Ok(stat.f_type == CGROUP2_SUPER_MAGIC),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Where it is, as far as the calling process can see it.
    ///
    /// # Errors
    /// Those of reading /proc/self/fd.
    pub fn path(&self) -> io::Result<PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// Opens a directory of this kernfs file system (cgroup2) by its id, which
    /// no name or place in the tree is needed for (open_by_handle_at(2)).
    ///
    /// # Errors
    /// EPERM without CAP_DAC_READ_SEARCH in the initial user namespace; ESTALE
    /// when there is no such directory; EOPNOTSUPP or EINVAL before Linux 5.5.
    pub fn by_handle(&self, id: u64) -> io::Result<Folder> {
        #[repr(C)]
        struct Handle {
            bytes: libc::c_uint,
            kind: libc::c_int,
            id: [u8; 8],
        }
        let mut handle = Handle {
            bytes: 8,
            kind: FILEID_KERNFS,
            id: id.to_ne_bytes(),
        };
        // SAFETY: `handle` is laid out as struct file_handle with the eight bytes
        // that it says it has behind it, and lives across the call. libc declares
        // the call for glibc alone, so it is made by number.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                self.fd.as_raw_fd(),
                &raw mut handle,
                libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC,
            )
        };
        match i32::try_from(fd) {
            Ok(fd) if fd >= 0 => Ok(Folder {
                // SAFETY: `fd` was just opened here and nobody else owns it.
                fd: unsafe { OwnedFd::from_raw_fd(fd) },
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Entries as getdents64(2) wrote them (`struct linux_dirent64`).
#[derive(Clone, Debug)]
pub struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        loop {
            let (entry, rest) = split(self.rest)?;
            self.rest = rest;
            let inode = u64::from_ne_bytes(entry.get(..8)?.try_into().ok()?);
            let name = CStr::from_bytes_until_nul(entry.get(19..)?).ok()?;
            if !matches!(name.to_bytes(), b"." | b"..") {
                return Some(Item {
                    inode,
                    is_folder: *entry.get(18)? == libc::DT_DIR,
                    name: name.to_bytes(),
                });
            }
        }
    }
}

/// The first entry and what follows it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(u16::from_ne_bytes(bytes.get(16..18)?.try_into().ok()?));
    (length > 19).then(|| bytes.split_at_checked(length))?
}

/// Hands a name over as the kernel wants it.
fn with_nul<T>(name: &[u8], call: impl FnOnce(&CStr) -> io::Result<T>) -> io::Result<T> {
    let mut room = [0_u8; LONGEST];
    let too_long = || io::Error::from_raw_os_error(libc::ENAMETOOLONG);
    room.get_mut(..name.len())
        .filter(|copy| copy.len() < LONGEST)
        .ok_or_else(too_long)?
        .copy_from_slice(name);
    let with_nul = room.get(..=name.len()).ok_or_else(too_long)?;
    let name = CStr::from_bytes_with_nul(with_nul)
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    call(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_same_names_and_inodes_as_std() {
        use std::os::unix::fs::DirEntryExt;
        let path = Path::new("/proc/self/attr");
        let path = if path.exists() {
            path
        } else {
            Path::new("/sys")
        };
        let folder = Folder::open(path).unwrap();
        let mut scratch = Scratch::default();
        for _ in 0..2 {
            folder.rewind().unwrap();
            let mut found = BTreeSet::new();
            while let Some(items) = folder.next(&mut scratch).unwrap() {
                found.extend(items.map(|item| (item.name.to_vec(), item.inode)));
            }
            let expected = std::fs::read_dir(path).unwrap().map(|entry| {
                let entry = entry.unwrap();
                (entry.file_name().into_encoded_bytes(), entry.ino())
            });
            assert_eq!(found, expected.collect());
        }
    }

    #[test]
    fn links_and_files_are_read_within_the_room() {
        let own = Folder::open(Path::new("/proc/self")).unwrap();
        let mut room = [0; 4096];
        let exe = std::env::current_exe().unwrap();
        let bytes = exe.as_os_str().as_encoded_bytes();
        assert_eq!(own.link(b"exe", &mut room).unwrap(), bytes);
        assert_eq!(own.link(b"exe", &mut room[..4]).unwrap(), &bytes[..4]);
        let mut scratch = Scratch::default();
        let comm = std::fs::read("/proc/self/comm").unwrap();
        assert_eq!(own.text(b"comm", &mut scratch).unwrap(), comm);
    }

    #[test]
    fn names_that_cannot_be_are_errors() {
        let root = Folder::open(Path::new("/")).unwrap();
        let errno = |name: &[u8]| root.pin(name).unwrap_err().raw_os_error();
        assert_eq!(errno(&[b'x'; 256]), Some(libc::ENAMETOOLONG));
        assert_eq!(errno(&[b'x'; 255]), Some(libc::ENOENT));
        assert_eq!(errno(b"a\0b"), Some(libc::EINVAL));
        assert_eq!(errno(b""), Some(libc::ENOENT));
    }

    #[test]
    fn a_torn_entry_ends_the_list() {
        for bytes in [&[0_u8; 24][..], &[0xff; 24], &[0; 3], &[]] {
            assert_eq!(Items { rest: bytes }.count(), 0);
        }
    }
}

//! The reading side of a BPF ring buffer (Documentation/bpf/ringbuf.rst).
//!
//! The kernel lends the ring as memory: a page that holds the reader's position,
//! a page that holds the writer's, and the data, twice in a row so that a record
//! which runs over the end can be read in one piece. Mapped as a whole, a ring of
//! 4 MiB would count as 8 MiB of this process. So only a window of the data is
//! mapped, and moved along: one system call for some 680 records, none for an
//! empty ring.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
#[cfg(target_has_atomic = "64")]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};

/// How much of the data is mapped at a time.
const WINDOW: usize = 64 << 10;
/// The header of a record: its length with two flags, and a word that is the
/// kernel's own.
const HEADER: usize = 8;
/// The record is still being written (BPF_RINGBUF_BUSY_BIT, linux/bpf.h).
const BUSY: u32 = 1 << 31;
/// The record was given up (BPF_RINGBUF_DISCARD_BIT).
const DISCARD: u32 = 1 << 30;

/// Pages of a BPF map, shared with the kernel.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn new(fd: &OwnedFd, offset: usize, length: usize, access: libc::c_int) -> io::Result<Mapping> {
        let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping where the kernel wants it touches no other memory;
        // the descriptor is open.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                access,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Mapping { start, length })
    }

    /// The position that stands at the beginning of the first two pages (`struct
    /// bpf_ringbuf`, kernel/bpf/ringbuf.c), or its lower half: it is as wide as the
    /// kernel's words, and this process may have 32 bits on a kernel of 64.
    fn word(&self) -> &AtomicUsize {
        // SAFETY: a mapping is page-aligned and at least a page long, and lives as
        // long as `self`. Both sides access the word atomically.
        unsafe { self.start.cast::<AtomicUsize>().as_ref() }
    }

    /// Tells the writer the reader's position, all of it: without its upper half a
    /// kernel of 64 bits would find the ring full for ever after 4 GiB. One of 32
    /// bits has nothing behind the lower.
    #[cfg(target_has_atomic = "64")]
    fn publish(&self, position: u64) {
        // SAFETY: as above, and the reader's page holds its position and no more.
        let word = unsafe { self.start.cast::<AtomicU64>().as_ref() };
        word.store(position, Ordering::Release);
    }

    /// The same where a process cannot write it at once: such a kernel has 32 bits.
    #[cfg(not(target_has_atomic = "64"))]
    fn publish(&self, position: u64) {
        self.word().store(position as usize, Ordering::Release);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this value made the mapping, nobody else unmaps it, and no borrow
        // of it outlives `self`. It fails for no mapping of ours.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// A ring and how far it has been read.
#[derive(Debug)]
pub struct Ring {
    fd: OwnedFd,
    /// Of the data; a power of two.
    bytes: usize,
    page: usize,
    reader: Mapping,
    writer: Mapping,
    window: Mapping,
    /// Where in the ring the window begins.
    window_at: usize,
    /// Where the next record begins. Positions only grow; the place in the ring is
    /// what remains modulo its size.
    position: u64,
    /// The writer's position as last seen.
    written: u64,
    /// The reader's position has been published since the last full fence.
    unfenced: bool,
}

/// The writer's position, of which `word` is all, or the lower half. It is ahead
/// of the reader's by less than a ring, and a ring has less than 4 GiB.
fn ahead(position: u64, word: usize) -> u64 {
    position.wrapping_add(word.wrapping_sub(position as usize) as u64)
}

/// The size of a page in bytes.
fn page() -> usize {
    // SAFETY: sysconf(3) takes a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // It cannot fail (POSIX has it); 4 KiB is what the smallest pages have.
    usize::try_from(page).unwrap_or(4096)
}

impl Ring {
    /// The size of the smallest ring that has `bytes` bytes: a power of two, and a
    /// page or more.
    pub fn size(bytes: u32) -> u32 {
        let page = u32::try_from(page()).unwrap_or(u32::MAX);
        bytes
            .max(page)
            .checked_next_power_of_two()
            .unwrap_or(1 << 31)
    }

    /// Maps the BPF map behind `fd`, which must be a ring buffer of `bytes` bytes.
    ///
    /// # Errors
    /// InvalidInput for a size that no ring has, else those of mmap(2).
    pub fn new(fd: OwnedFd, bytes: usize) -> io::Result<Ring> {
        let page = page();
        if !bytes.is_power_of_two() || bytes < page {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let reader = Mapping::new(&fd, 0, page, libc::PROT_READ | libc::PROT_WRITE)?;
        let writer = Mapping::new(&fd, page, page, libc::PROT_READ)?;
        let window = Mapping::new(&fd, 2 * page, WINDOW.min(2 * bytes), libc::PROT_READ)?;
        let mut ring = Ring {
            fd,
            bytes,
            page,
            reader,
            writer,
            window,
            window_at: 0,
            position: 0,
            written: 0,
            unfenced: false,
        };
        ring.position = ring.reader.word().load(Ordering::Acquire) as u64;
        ring.written = ring.position;
        Ok(ring)
    }

    /// Lends the next record to `read` and gives its place back to the writer;
    /// `None` when there is none yet. Then, and only then, the descriptor will
    /// become readable with the next one.
    ///
    /// # Errors
    /// Those of mmap(2) when the window is moved; InvalidData for a record longer
    /// than the window, which can never be read.
    pub fn next<T>(&mut self, mut read: impl FnMut(&[u8]) -> T) -> io::Result<Option<T>> {
        loop {
            let Some(header) = self.finished()? else {
                if !self.unfenced {
                    return Ok(None);
                }
                // The writer of a record wakes the reader if it finds the reader's
                // position at that record. Either it sees the position that was
                // published last, or what it wrote is seen by one more look.
                fence(Ordering::SeqCst);
                self.unfenced = false;
                continue;
            };
            let length = (header & !DISCARD) as usize;
            let mut answer = None;
            if header & DISCARD == 0 {
                let at = self.reach(HEADER + length)? + HEADER;
                // SAFETY: reach() has checked that these bytes lie in the window. The
                // record is finished, and the writer leaves it alone until the
                // position below is published, after the borrow has ended.
                let record = unsafe {
                    std::slice::from_raw_parts(self.window.start.add(at).as_ptr(), length)
                };
                answer = Some(read(record));
            }
            self.position = self
                .position
                .wrapping_add((HEADER + length).next_multiple_of(8) as u64);
            self.reader.publish(self.position);
            self.unfenced = true;
            if answer.is_some() {
                return Ok(answer);
            }
        }
    }

    /// After `next` has answered `None`: whether a writer that is not done yet (it
    /// may have lost its CPU meanwhile) stands before others that may be.
    pub fn blocked(&self) -> bool {
        self.position != self.written
    }

    /// How far the writers have come: records that were begun before this call lie
    /// before it. Marks are as wide as a word, which is ample for what a ring holds.
    pub fn mark(&self) -> usize {
        self.writer.word().load(Ordering::Acquire)
    }

    /// How far it has been read.
    pub fn position(&self) -> usize {
        self.position as usize
    }

    /// Whether everything before a mark has been read.
    pub fn has_passed(&self, mark: usize) -> bool {
        self.position().wrapping_sub(mark).cast_signed() >= 0
    }

    /// The first word of the next record's header, if its writer is done with it.
    fn finished(&mut self) -> io::Result<Option<u32>> {
        if self.position == self.written {
            self.written = ahead(self.position, self.writer.word().load(Ordering::Acquire));
            if self.position == self.written {
                return Ok(None);
            }
        }
        let at = self.reach(HEADER)?;
        // SAFETY: reach() has checked that eight bytes lie in the window from
        // here; positions are multiples of eight, so the word is aligned. Its
        // writer changes it by an atomic exchange.
        let word = unsafe { self.window.start.add(at).cast::<AtomicU32>().as_ref() };
        let header = word.load(Ordering::Acquire);
        Ok((header & BUSY == 0).then_some(header))
    }

    /// Sees to it that the window holds `length` bytes from the position on, and
    /// says where in it they begin.
    fn reach(&mut self, length: usize) -> io::Result<usize> {
        // Within the ring, so that it fits.
        let place = (self.position & (self.bytes as u64 - 1)) as usize;
        let within = |from: usize, size: usize| {
            let at = place.checked_sub(from)?;
            (at + length <= size).then_some(at)
        };
        if let Some(at) = within(self.window_at, self.window.length) {
            return Ok(at);
        }
        let from = place & !(self.page - 1);
        let size = WINDOW.min(2 * self.bytes - from);
        let Some(at) = within(from, size) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        self.window = Mapping::new(&self.fd, 2 * self.page + from, size, libc::PROT_READ)?;
        self.window_at = from;
        Ok(at)
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests;

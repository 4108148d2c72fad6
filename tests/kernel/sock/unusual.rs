//! Calls that most programs never make.

use std::io;
use std::net::SocketAddr;

use super::Sock;
use super::address::to_wire;
use crate::netns::check;

impl Sock {
    /// Connects with data in the SYN, or as much of it as the peer allows (TCP
    /// Fast Open, RFC 7413): connect(2) is never called.
    pub fn fast_open(&self, address: SocketAddr) -> io::Result<()> {
        let (storage, length) = to_wire(address, self.domain);
        self.aim(Some(address));
        // SAFETY: `storage` holds `length` bytes, the payload one; both live
        // across the call.
        let sent = unsafe {
            let to = (&raw const storage).cast();
            let flags = libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL;
            libc::sendto(self.raw(), b"x".as_ptr().cast(), 1, flags, to, length)
        };
        if sent == 1 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Calls connect(2) with these bytes for an address.
    pub fn connect_raw(&self, address: &[u8]) -> io::Result<()> {
        let length = address.len() as libc::socklen_t;
        // SAFETY: `address` is `length` bytes long and lives across the call.
        check(unsafe { libc::connect(self.raw(), address.as_ptr().cast(), length) })?;
        Ok(())
    }

    /// As a listener, takes data that comes with a SYN, from those who bring a
    /// cookie of ours.
    pub fn allow_fast_open(&self) {
        self.set(libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 8 as libc::c_int);
    }
}

use super::*;
use std::ffi::CString;
use std::io::{PipeReader, Read, pipe};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;

/// Writes until there is no room, and says how much went in.
fn fill(output: &Output) -> usize {
    let mut total = 0;
    loop {
        match output.write(&[b'x'; 4096]) {
            Ok(n) => total += n,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                return total;
            }
        }
    }
}

/// The writing end of a named FIFO that nobody reads: it cannot be opened anew
/// (ENXIO), while an anonymous pipe can.
fn unread_fifo(name: &str) -> OwnedFd {
    let path = std::env::temp_dir().join(format!("sockwatch-{}-{name}", std::process::id()));
    let c_path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: a live NUL-terminated path.
    assert_eq!(unsafe { libc::mkfifo(c_path.as_ptr(), 0o600) }, 0);
    let reader = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)
        .unwrap();
    let writer = OpenOptions::new().write(true).open(&path).unwrap();
    drop(reader);
    std::fs::remove_file(path).unwrap();
    writer.into()
}

fn piped() -> (PipeReader, OwnedFd) {
    let (reader, writer) = pipe().unwrap();
    (reader, OwnedFd::from(writer))
}

#[test]
fn a_full_pipe_does_not_block_and_the_shared_description_is_untouched() {
    let (mut reader, shared) = piped();
    let output = Output::over(shared.as_fd(), Refused::Lend).unwrap();
    assert_eq!(output.kind(), Kind::Pipe);
    assert!(matches!(output.way, Way::Write));
    let total = fill(&output);
    assert!(!is_nonblocking(&shared));
    assert!(output.source().is_some());
    drop((output, shared));
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), total);
}

#[test]
fn a_pipe_that_cannot_be_opened_anew_is_lent_the_flag_and_gets_it_back() {
    let shared = unread_fifo("lent");
    let output = Output::over(shared.as_fd(), Refused::Lend).unwrap();
    assert!(matches!(output.way, Way::Lent));
    assert!(is_nonblocking(&shared));
    assert_eq!(
        output.write(b"x").unwrap_err().kind(),
        ErrorKind::BrokenPipe
    );
    drop(output);
    assert!(!is_nonblocking(&shared));
}

#[test]
fn a_polled_pipe_fills_up_without_blocking_and_without_a_flag() {
    let (_reader, shared) = piped();
    let output = Output {
        file: File::from(shared.try_clone().unwrap()),
        kind: Kind::Pipe,
        way: Way::Polled,
    };
    assert!(fill(&output) >= libc::PIPE_BUF);
    assert!(!is_nonblocking(&shared));
}

#[test]
fn a_polled_pipe_without_a_reader_fails_instead_of_waiting() {
    let shared = unread_fifo("polled");
    let output = Output::over(shared.as_fd(), Refused::Poll).unwrap();
    assert!(matches!(output.way, Way::Polled));
    assert_eq!(
        output.write(b"x").unwrap_err().kind(),
        ErrorKind::BrokenPipe
    );
    assert!(!is_nonblocking(&shared));
}

#[test]
fn a_socket_is_sent_to_without_blocking() {
    let (near, far) = UnixStream::pair().unwrap();
    let near = OwnedFd::from(near);
    let output = Output::over(near.as_fd(), Refused::Lend).unwrap();
    assert_eq!(output.kind(), Kind::Socket);
    fill(&output);
    assert!(!is_nonblocking(&near));
    drop(far);
    let broken = output.write(b"x").unwrap_err();
    assert!(matches!(
        broken.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
    ));
}

#[test]
fn a_datagram_socket_is_refused() {
    let (near, _far) = UnixDatagram::pair().unwrap();
    assert!(matches!(
        Output::over(near.as_fd(), Refused::Lend),
        Err(OpenError::Datagram)
    ));
}

#[test]
fn a_terminal_is_opened_anew() {
    let (mut master, mut slave) = (-1, -1);
    // SAFETY: two live ints are filled in; name, termios and window size may be
    // null (openpty(3)).
    let made = unsafe {
        libc::openpty(
            &raw mut master,
            &raw mut slave,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
    assert_eq!(made, 0);
    // SAFETY: openpty() has just opened both, and nobody else owns them.
    let (_master, slave) = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    let output = Output::over(slave.as_fd(), Refused::Lend).unwrap();
    assert_eq!(output.kind(), Kind::Terminal);
    assert!(fill(&output) > 0);
    assert!(!is_nonblocking(&slave));
}

#[test]
fn files_and_null_are_written_plainly() {
    let null = OpenOptions::new().write(true).open("/dev/null").unwrap();
    let output = Output::over(null.as_fd(), Refused::Lend).unwrap();
    assert_eq!(output.kind(), Kind::File);
    assert_eq!(output.source(), None);
    assert_eq!(output.write(b"x").unwrap(), 1);
    let read_only = File::open("/dev/null").unwrap();
    assert!(matches!(
        Output::over(read_only.as_fd(), Refused::Lend),
        Err(OpenError::ReadOnly)
    ));
}

/// Runs itself again from a shell, which can start a program without fd 1.
#[test]
fn a_closed_standard_output_is_noticed() {
    const CHILD: &str = "SOCKWATCH_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        assert!(matches!(Output::standard(), Err(OpenError::Closed)));
        return;
    }
    let child = |redirection: &str| {
        Command::new("sh")
            .arg("-c")
            .arg(format!(
                "exec \"$0\" --exact \"$1\" {redirection} 2>/dev/null"
            ))
            .arg(std::env::current_exe().unwrap())
            .arg("sys::output::tests::a_closed_standard_output_is_noticed")
            .env(CHILD, "1")
            .status()
            .unwrap()
    };
    assert!(child(">&-").success());
    assert!(!child(">/dev/null").success());
}

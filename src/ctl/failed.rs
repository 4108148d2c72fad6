//! Why `sockwatch ctl` failed, and what can be done about it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use crate::log::Plain;
use crate::sys::output::OpenError;

/// Why it failed: a sentence, with what can be done about it.
#[derive(Debug)]
pub enum CtlFailed {
    /// Standard output cannot be used.
    Open(OpenError),
    /// Nobody can be asked.
    Connect(PathBuf, io::Error),
    /// What is there is no socket.
    NoSocket(PathBuf),
    /// The connection broke, or the daemon ended.
    Gone,
    /// The daemon does not answer.
    Silent,
    /// What came is no line of a daemon's.
    Garbled,
    /// The daemon said no.
    Refused {
        /// Why.
        error: String,
        /// Each problem, where there are several.
        problems: Vec<String>,
    },
    /// Standard output failed.
    Output(io::Error),
    /// The reader of standard output is gone: a quiet end.
    ReaderGone,
}

impl fmt::Display for CtlFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CtlFailed::Open(error) => write!(f, "standard output {error}"),
            CtlFailed::Connect(path, error) => {
                let path = path.to_string_lossy();
                let path = Plain(&path);
                match error.kind() {
                    ErrorKind::NotFound => write!(
                        f,
                        "there is no control socket {path}: start a daemon with \
                         `control: {path}` under `daemon:`, or name its path with --socket"
                    ),
                    ErrorKind::PermissionDenied => write!(
                        f,
                        "you may not open the control socket {path}: ask as root or as the \
                         daemon's user, or have your group named in `daemon.control-gids`"
                    ),
                    ErrorKind::ConnectionRefused => write!(
                        f,
                        "nobody answers at the control socket {path}: the daemon that made it \
                         is gone; start it again"
                    ),
                    _ => write!(f, "cannot connect to the control socket {path}: {error}"),
                }
            }
            CtlFailed::NoSocket(path) => write!(
                f,
                "{} is no socket: name that of a daemon with --socket",
                Plain(&path.to_string_lossy())
            ),
            CtlFailed::Gone => {
                f.write_str("the daemon is gone: it ended, or closed the connection")
            }
            CtlFailed::Silent => write!(
                f,
                "the daemon has not answered for {} seconds; is it stopped?",
                super::PATIENCE.as_secs()
            ),
            CtlFailed::Garbled => {
                f.write_str("what answers there is no sockwatch, or one of another version")
            }
            CtlFailed::Refused { error, .. } => write!(f, "{}", Plain(error)),
            CtlFailed::Output(error) => write!(f, "writing to standard output failed: {error}"),
            CtlFailed::ReaderGone => f.write_str("the reader of standard output is gone"),
        }
    }
}

impl std::error::Error for CtlFailed {}

//! Why a daemon could not start or go on.

use std::fmt;
use std::io;

use crate::control::ListenError;
use crate::emit::OutputError;
use crate::handlers::OpenError as HandlerError;
use crate::model::Origin;
use crate::state::OpenError as StateError;
use crate::sys::output::OpenError;

/// Why the daemon could not start or go on.
#[derive(Debug)]
pub enum RunError {
    /// Something at the start was refused: what, and the kernel's word.
    Start(&'static str, io::Error),
    /// Standard output cannot be used.
    Open(OpenError),
    /// The state directory cannot be used.
    State(StateError),
    /// A handler cannot be had.
    Handler(HandlerError),
    /// The loop itself failed.
    Loop(io::Error),
    /// There is to be a control socket, and it is not to be had.
    Control(ListenError),
    /// Standard output failed.
    Output(io::Error),
    /// The program was to end, but not everything queued could be written.
    Unwritten,
    /// The hook for connect() calls that a sensor forces cannot be used: why.
    Hook(Origin, String),
    /// Nobody answers for any protocol that a sensor needs.
    NoSource,
    /// The reader of standard output is gone: a quiet end.
    ReaderGone,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Start(what, error) => write!(f, "cannot {what}: {error}"),
            RunError::Open(error) => write!(f, "standard output {error}"),
            RunError::State(error) => write!(f, "{error}"),
            RunError::Handler(error) => write!(f, "{error}"),
            RunError::Loop(error) => write!(f, "the event loop failed: {error}"),
            RunError::Control(error) => write!(f, "{error}"),
            RunError::Output(error) => write!(f, "writing to standard output failed: {error}"),
            RunError::Unwritten => f.write_str(
                "ended with events that could not be written; they are lost",
            ),
            RunError::Hook(hook, reason) => write!(
                f,
                "cannot use the hook {}, which a sensor forces: {reason}",
                hook.as_str()
            ),
            RunError::NoSource => f.write_str(
                "the kernel answers no dump that the sensors need (are tcp_diag and udp_diag missing?)",
            ),
            RunError::ReaderGone => f.write_str("the reader of standard output is gone"),
        }
    }
}

impl std::error::Error for RunError {}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> RunError {
        RunError::Loop(error)
    }
}

impl From<OutputError> for RunError {
    fn from(error: OutputError) -> RunError {
        match error {
            OutputError::Closed => RunError::ReaderGone,
            OutputError::Io(error) => RunError::Output(error),
        }
    }
}

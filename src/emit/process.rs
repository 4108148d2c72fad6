//! Who has a socket, as a record tells it.
//!
//! `process` is one process whatever else is known: who called connect(), where a
//! hook saw it, else the oldest of those that have the socket open. Where that is
//! not the whole answer, `processes` lists all holders, oldest first.

use super::digits;
use super::object::Object;
use crate::log::Plain;
use crate::model::{Attribution, Caller, Holders, Process, ProcessUnknown, SocketData};

/// How many holders a cell of a text table names.
const SHOWN: usize = 3;

/// Writes `user`, `process`, `processes`, or why there is none; nothing where
/// nobody asked and no hook saw the socket.
pub(super) fn write_who(data: &SocketData, out: &mut Object<'_>) {
    write_user(data.user.as_deref(), out);
    let held = match &data.holders {
        Some(Attribution::Held(holders)) => Some(&**holders),
        Some(Attribution::Unknown(why)) if data.process.is_none() => {
            out.null("process");
            out.word("process_reason", why.as_str());
            return;
        }
        Some(Attribution::Unknown(_)) | None => None,
    };
    let told = match &data.process {
        Some(caller) => {
            let same = held.and_then(|holders| of_pid(holders, caller.pid));
            let mut process = out.object("process");
            write_task(caller, &mut process);
            match (same, &data.holders) {
                (Some(same), _) => write_rest(same, data.cmdline, &mut process),
                (None, Some(Attribution::Unknown(why))) => no_exe(*why, &mut process),
                // It gave the socket away, or cannot be seen from here.
                (None, Some(Attribution::Held(_))) => no_exe(ProcessUnknown::Gone, &mut process),
                (None, None) => {}
            }
            process.close();
            same.is_some()
        }
        None => {
            let Some(oldest) = held.and_then(|holders| holders.oldest.first()) else {
                return;
            };
            let mut process = out.object("process");
            write_process(oldest, data.cmdline, &mut process);
            process.close();
            true
        }
    };
    if let Some(holders) = held
        && (!told || holders.oldest.len() > 1)
    {
        out.objects("processes", &holders.oldest, |process, object| {
            write_process(process, data.cmdline, object);
        });
        if holders.others > 0 {
            out.number("processes_more", holders.others);
        }
    }
}

/// Nothing but the hook tells of this process.
fn no_exe(why: ProcessUnknown, process: &mut Object<'_>) {
    process.null("exe");
    process.word("exe_reason", why.as_str());
}

/// Writes the name of the user, where it has one.
pub(super) fn write_user(user: Option<&str>, out: &mut Object<'_>) {
    if let Some(user) = user {
        out.text("user", user);
    }
}

/// Writes who called connect().
pub(super) fn write_caller(caller: &Caller, out: &mut Object<'_>) {
    let mut process = out.object("process");
    write_task(caller, &mut process);
    process.close();
}

fn write_task(caller: &Caller, process: &mut Object<'_>) {
    process.number("pid", caller.pid);
    process.number("tid", caller.tid);
    process.text("comm", &caller.comm.to_string());
}

fn write_process(process: &Process, cmdline: bool, out: &mut Object<'_>) {
    out.number("pid", process.pid);
    out.text("comm", &process.comm.to_string());
    write_rest(process, cmdline, out);
}

/// What only /proc tells.
fn write_rest(process: &Process, cmdline: bool, out: &mut Object<'_>) {
    match &process.exe {
        Some(exe) => out.text("exe", exe),
        None => {
            out.null("exe");
            out.word("exe_reason", "not_permitted");
        }
    }
    out.number("uid", process.uid);
    write_user(process.user.as_deref(), out);
    if !cmdline {
        return;
    }
    match &process.cmdline {
        Some(cmdline) => out.text("cmdline", cmdline),
        None => {
            out.null("cmdline");
            out.word("cmdline_reason", "not_permitted");
        }
    }
}

fn of_pid(holders: &Holders, pid: u32) -> Option<&Process> {
    let mut oldest = holders.oldest.iter();
    oldest.find(|process| process.pid == pid).map(|it| &**it)
}

/// Appends the cell of a text table: `812/curl` for each of the oldest holders,
/// and how many more there are; a reason stands in parentheses.
pub(super) fn cell(data: &SocketData, out: &mut Vec<u8>) {
    match &data.holders {
        None => out.push(b'-'),
        Some(Attribution::Unknown(why)) => {
            out.push(b'(');
            out.extend_from_slice(why.as_str().as_bytes());
            out.push(b')');
        }
        Some(Attribution::Held(holders)) => {
            let more = holders.oldest.len().saturating_sub(SHOWN) as u64;
            for (index, process) in holders.oldest.iter().take(SHOWN).enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                digits::number(process.pid, out);
                out.push(b'/');
                let comm = process.comm.to_string();
                out.extend_from_slice(Plain(&comm).to_string().as_bytes());
            }
            let more = more + u64::from(holders.others);
            if more > 0 {
                out.extend_from_slice(b" +");
                digits::number(more, out);
            }
        }
    }
}

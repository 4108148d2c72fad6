//! The environment of a handler's program: the main fields of its event.
//!
//! A variable is set where the event has the field and knows it, and absent
//! otherwise: what the daemon itself inherited is never passed on under one of
//! these names.

use crate::model::{
    Comm, ConnectData, Data, Event, Host, Netns, Owner, Placed, Proto, Sighting, SocketData,
};

/// Every variable there can be.
pub(super) const NAMES: [&str; 29] = [
    "SOCKWATCH_EID",
    "SOCKWATCH_SEQ",
    "SOCKWATCH_SENSOR",
    "SOCKWATCH_LISTENER",
    "SOCKWATCH_TAG",
    "SOCKWATCH_ACTION",
    "SOCKWATCH_EVIDENCE",
    "SOCKWATCH_PROTO",
    "SOCKWATCH_LOCAL",
    "SOCKWATCH_REMOTE",
    "SOCKWATCH_REMOTE_HOST",
    "SOCKWATCH_STATE",
    "SOCKWATCH_DIRECTION",
    "SOCKWATCH_ORIGIN",
    "SOCKWATCH_RESULTS",
    "SOCKWATCH_PID",
    "SOCKWATCH_COMM",
    "SOCKWATCH_EXE",
    "SOCKWATCH_COOKIE",
    "SOCKWATCH_NETNS",
    "SOCKWATCH_NETNS_NAME",
    "SOCKWATCH_UID",
    "SOCKWATCH_USER",
    "SOCKWATCH_CGROUP",
    "SOCKWATCH_UNIT",
    "SOCKWATCH_CONTAINER",
    "SOCKWATCH_CAUSE",
    "SOCKWATCH_SOURCE",
    "SOCKWATCH_SINK",
];

/// The variables that an event sets.
pub(super) fn of(event: &Event) -> Vec<(&'static str, String)> {
    let mut vars = vec![
        ("SOCKWATCH_EID", event.eid.clone()),
        ("SOCKWATCH_SEQ", event.seq.to_string()),
        ("SOCKWATCH_SENSOR", event.sensor.to_string()),
        ("SOCKWATCH_LISTENER", event.listener.as_str().to_owned()),
    ];
    if let Some(tag) = &event.tag {
        vars.push(("SOCKWATCH_TAG", tag.to_string()));
    }
    let mut action = |word: &str| vars.push(("SOCKWATCH_ACTION", word.to_owned()));
    match &event.data {
        Data::Socket(socket) => of_socket(socket, &mut vars),
        Data::Connect(connect) => of_connect(connect, &mut vars),
        Data::Gap(gap) => {
            action("gap");
            vars.push(("SOCKWATCH_CAUSE", gap.cause.as_str().to_owned()));
            if let Some((sink, _)) = &gap.lost {
                vars.push(("SOCKWATCH_SINK", sink.to_string()));
            }
        }
        Data::Degraded(degraded) => {
            action("degraded");
            vars.push(("SOCKWATCH_SOURCE", degraded.source.to_owned()));
        }
        Data::Restored(restored) => {
            action("restored");
            vars.push(("SOCKWATCH_SOURCE", restored.source.to_owned()));
        }
    }
    vars
}

/// Names hold no spaces, so that they can stand beside each other.
fn of_connect(connect: &ConnectData, vars: &mut Vec<(&'static str, String)>) {
    let attempt = &connect.attempt;
    vars.push(("SOCKWATCH_ACTION", "connect".to_owned()));
    vars.push(("SOCKWATCH_ORIGIN", attempt.origin().as_str().to_owned()));
    vars.push(("SOCKWATCH_PROTO", Proto::Tcp.as_str().to_owned()));
    vars.push(("SOCKWATCH_REMOTE", attempt.remote.to_string()));
    if !connect.results.is_empty() {
        let names: Vec<&str> = connect.results.iter().map(|name| name.as_str()).collect();
        vars.push(("SOCKWATCH_RESULTS", names.join(" ")));
    }
    vars.push(("SOCKWATCH_COOKIE", attempt.cookie.0.to_string()));
    of_netns(attempt.netns, connect.netns_name.as_deref(), vars);
    match &attempt.sighting {
        Sighting::Hook { caller, .. } => of_process(caller.pid, &caller.comm, vars),
        Sighting::Table {
            evidence, state, ..
        } => {
            vars.push(("SOCKWATCH_EVIDENCE", evidence.as_str().to_owned()));
            vars.push(("SOCKWATCH_STATE", state.as_str(Proto::Tcp).to_owned()));
        }
    }
    if let Some(uid) = attempt.uid() {
        vars.push(("SOCKWATCH_UID", uid.to_string()));
    }
    of_user(connect.user.as_deref(), vars);
    of_cgroup(&connect.cgroup, vars);
}

fn of_cgroup(placed: &Placed, vars: &mut Vec<(&'static str, String)>) {
    let Ok(info) = &placed.cgroup else {
        return;
    };
    vars.push(("SOCKWATCH_CGROUP", info.path.to_string()));
    if let Some(unit) = &info.unit {
        vars.push(("SOCKWATCH_UNIT", unit.to_string()));
    }
    if let Some(container) = &info.container {
        vars.push(("SOCKWATCH_CONTAINER", container.to_string()));
    }
}

fn of_process(pid: u32, comm: &Comm, vars: &mut Vec<(&'static str, String)>) {
    vars.push(("SOCKWATCH_PID", pid.to_string()));
    vars.push(("SOCKWATCH_COMM", comm.to_string()));
}

fn of_netns(netns: Option<Netns>, name: Option<&str>, vars: &mut Vec<(&'static str, String)>) {
    if let Some(netns) = netns {
        vars.push(("SOCKWATCH_NETNS", netns.0.to_string()));
    }
    if let Some(name) = name {
        vars.push(("SOCKWATCH_NETNS_NAME", name.to_owned()));
    }
}

fn of_user(user: Option<&str>, vars: &mut Vec<(&'static str, String)>) {
    if let Some(user) = user {
        vars.push(("SOCKWATCH_USER", user.to_owned()));
    }
}

fn of_socket(socket: &SocketData, vars: &mut Vec<(&'static str, String)>) {
    if let Some((action, evidence)) = socket.action {
        vars.push(("SOCKWATCH_ACTION", action.as_str().to_owned()));
        vars.push(("SOCKWATCH_EVIDENCE", evidence.as_str().to_owned()));
    }
    vars.push(("SOCKWATCH_PROTO", socket.id.proto.as_str().to_owned()));
    vars.push(("SOCKWATCH_LOCAL", socket.id.local.to_string()));
    vars.push(("SOCKWATCH_REMOTE", socket.id.remote.to_string()));
    if let Host::Named(name) = &socket.host {
        vars.push(("SOCKWATCH_REMOTE_HOST", name.as_str().to_owned()));
    }
    let state = socket.state.as_str(socket.id.proto);
    vars.push(("SOCKWATCH_STATE", state.to_owned()));
    if let Some(direction) = socket.direction {
        vars.push(("SOCKWATCH_DIRECTION", direction.as_str().to_owned()));
    }
    if let Some((pid, comm, exe)) = socket.shown_process() {
        of_process(pid, comm, vars);
        if let Some(exe) = exe {
            vars.push(("SOCKWATCH_EXE", exe.to_owned()));
        }
    }
    vars.push(("SOCKWATCH_COOKIE", socket.cookie.0.to_string()));
    of_netns(Some(socket.netns), socket.netns_name.as_deref(), vars);
    if let Owner::Known { uid, .. } = socket.owner {
        vars.push(("SOCKWATCH_UID", uid.to_string()));
    }
    of_user(socket.user.as_deref(), vars);
    if let Some(placed) = &socket.cgroup {
        of_cgroup(placed, vars);
    }
}

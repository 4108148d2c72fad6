//! What a notice costs.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};
use sockwatch::emit::Json;
use sockwatch::model::{
    Change, Data, Event, Host, Judge, Life, Listener, Needs, Netns, Now, Placed, Proto, SocketData,
    Step, Traffic, Verdict,
};
use sockwatch::sensor::NetSocket;
use sockwatch::source::Group;
use sockwatch::source::diag::Scope;
use sockwatch::stats::Stats;

use super::Outcome;
use super::dump::{VIEW, dump_and_diff};
use super::holders;
use super::sample::{Cost, Pairs, Whose};
use super::table::Line;

/// Batches that count.
const TURNS: usize = 100;
/// Batches that may be made anew because a notice came between the two drains.
const AGAIN: usize = 100;

/// Renders every change as the event that it would be.
struct Rendering {
    json: Json,
    events: u64,
    out: Vec<u8>,
}

impl Rendering {
    fn render(&mut self, change: Change, now: Now, life: Option<Life>, traffic: Option<Traffic>) {
        self.events += 1;
        let action = change.action();
        let event = Event {
            ts: now.wall,
            seq: self.events,
            eid: format!(
                "sockets|net.socket|{}@{}|0",
                action.as_str(),
                change.id.remote
            ),
            sensor: "sockets".into(),
            listener: Listener::NetSocket,
            tag: Some("net.socket".into()),
            data: Data::Socket(SocketData {
                action: Some((action, change.evidence)),
                id: change.id,
                wiped: change.wiped,
                host: change.host,
                state: change.state,
                direction: change.direction,
                process: change.process,
                user: None,
                holders: None,
                cmdline: false,
                cgroup: Some(match &change.cgroup {
                    Ok(cgroup) => cgroup.placed(),
                    Err(why) => Placed::nowhere(*why),
                }),
                cookie: change.key.cookie,
                netns: change.key.netns,
                netns_name: None,
                owner: change.owner,
                between_ticks: change.between_ticks,
                closed_first: None,
                life,
                traffic,
            }),
        };
        self.out.clear();
        self.json
            .event(&event, &mut self.out)
            .expect("a Vec takes any text");
    }
}

impl Judge for Rendering {
    fn owned(&mut self, _: sockwatch::model::SocketKey, _: sockwatch::model::Owner, _: u32) {}

    fn open(&mut self, change: Change, now: Now) -> Verdict {
        self.render(change, now, None, None);
        Verdict::Entered(Host::Unasked)
    }

    fn close(&mut self, change: Change, now: Now) {
        if let Step::Closed { life, traffic, .. } = change.step {
            self.render(change, now, life, traffic);
        }
    }
}

/// Receives notices until there is none, and does nothing with them.
fn hear(socket: &Socket, buffer: &mut [u8]) -> io::Result<u32> {
    let mut told = 0;
    loop {
        match socket.recv(&mut &mut buffer[..], 0) {
            Ok(_) => told += 1,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(told),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Notices to lines of JSON, against a bare loop that hears the same notices.
pub fn notices() -> Outcome<Vec<Line>> {
    let stats = Rc::new(Stats::default());
    let mut scope = Scope::open(Netns(sockwatch::sys::netns()?), Rc::clone(&stats))?;
    let mut heard = scope.open_notices()?;
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    let room = heard.request_buffer(4 << 20)?.notices;
    for group in Group::ALL
        .into_iter()
        .filter(|group| group.proto == Proto::Tcp)
    {
        heard.join(group)?;
        socket.add_membership(group.number())?;
    }
    socket.set_non_blocking(true)?;
    let netns = scope.netns();
    let mut sensor = NetSocket::new(netns, vec![VIEW], Needs::EVERYTHING, stats, Now::read());
    dump_and_diff(&mut scope, &mut sensor)?;
    let mut judge = Rendering {
        json: Json::new("bench"),
        events: 0,
        out: Vec::new(),
    };
    let (listener, mut buffer) = (TcpListener::bind("0.0.0.0:0")?, vec![0; 4096]);
    // The bare socket has the default room: 166 notices where this was written.
    let batch = (room / 2).min(150) / 2;
    // What held the sockets of the other figures may still be ending.
    thread::sleep(Duration::from_millis(500));
    heard.drain(usize::MAX, &mut |_, _| {})?;
    hear(&socket, &mut buffer)?;
    let (mut runs, mut made, mut again) = (Vec::new(), 0, 0);
    while runs.len() < TURNS {
        for number in 0..batch {
            let turn = runs.len() + again;
            drop(holders::connection(&listener, turn * batch + number)?);
        }
        // The kernel writes notices from a work queue, behind the close.
        thread::sleep(Duration::from_millis(20));
        let now = Now::read();
        let before = made;
        let (ours, drained) = Cost::of(Whose::Mine, || {
            heard.drain(usize::MAX, &mut |_, notice| {
                made += 1;
                sensor.notice(notice, now, &mut judge);
            })
        })?;
        let (peer, told) = Cost::of(Whose::Mine, || hear(&socket, &mut buffer))?;
        let each = made - before;
        if drained.overrun || told != each || each == 0 {
            again += 1;
            if again > AGAIN {
                let overrun = drained.overrun;
                return Err(format!(
                    "{again} batches were heard otherwise by the bare loop, the last as {told} \
                     notices of {each} (overrun: {overrun})"
                )
                .into());
            }
            continue;
        }
        runs.push((
            Cost {
                wall: ours.wall / each,
                cpu: ours.cpu / each,
            },
            Cost {
                wall: peer.wall / each,
                cpu: peer.cpu / each,
            },
        ));
    }
    if again > 0 {
        println!("{again} batches of notices were made anew: some came between the two drains");
    }
    let spread = Pairs::from(runs).spread(|cost| cost.cpu);
    let mut rate = Line::alone(
        "notices",
        "notices a second, one core",
        format!("{:.0}", 1e9 / spread.0.median),
        "50,000",
    );
    rate.peer = format!("{:.0} bare recv loop", 1e9 / spread.1.median);
    rate.ratio = format!("{:.2}", spread.1.median / spread.0.median);
    let events = judge.events as f64 / f64::from(made);
    let figure = format!("a notice, {events:.1} events, CPU");
    Ok(vec![
        rate,
        Line::alone("notices", figure, "", "").against(spread, ("ns", 1.0), "bare recv loop"),
    ])
}

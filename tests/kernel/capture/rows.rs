//! Dumps: one socket in each state, in each family.

use std::time::Instant;

use sockwatch::model::{Cookie, Family, Proto, SockId};
use sockwatch::wire::request;

use super::{ask, dump, ends, family, hold, nobody};
use crate::daemon::PATIENCE;
use crate::lines::{self, Ends, Holds};
use crate::netns;
use crate::peer;
use crate::proc_net;
use crate::sock::{Domain, Sock};

/// A row to be read.
struct Expected {
    ends: Ends,
    state: &'static str,
    owner: String,
}

impl Expected {
    fn line(&self) -> String {
        format!("row {} {} {}", self.ends.line(), self.state, self.owner)
    }
}

/// What the kernel must say of these sockets, and the sockets, kept open.
#[derive(Default)]
struct Scene {
    rows: Vec<Expected>,
    open: Vec<Sock>,
    /// Rows whose cookie is to be had once they are accepted: their listener, a
    /// peer that must send something first, and the row's place.
    later: Vec<(Sock, Option<Sock>, usize)>,
}

impl Scene {
    fn row(&mut self, ends: Ends, state: &'static str, owner: String) {
        self.rows.push(Expected { ends, state, owner });
    }

    /// A socket that stays open.
    fn open(&mut self, socket: Sock, state: &'static str) {
        self.row(ends(&socket), state, owner(&socket));
        self.open.push(socket);
    }

    /// What remains of a connection after its socket is closed.
    fn minisocket(&mut self, of: Ends, state: &'static str) {
        self.row(of, state, "mini owner=minisocket".to_string());
    }

    fn connections(&mut self, domain: Domain) {
        let listener = Sock::listener(domain);
        let (client, server) = Sock::pair(&listener);
        self.open(client, "ESTABLISHED");
        self.open(server, "ESTABLISHED");

        let (client, server) = Sock::pair(&listener);
        client.shutdown();
        server.receive_end();
        self.open(client, "FIN_WAIT2");
        self.open(server, "CLOSE_WAIT");

        let (client, server) = Sock::pair(&listener);
        self.minisocket(ends(&client), "FIN_WAIT2");
        drop(client);
        self.open(server, "CLOSE_WAIT");

        let (client, server) = Sock::pair(&listener);
        self.minisocket(ends(&client), "TIME_WAIT");
        drop(client);
        drop(server);
        self.open(listener, "LISTEN");
    }

    /// A listener whose queue is full: a child that waits in it, and a SYN that
    /// finds no place.
    fn full_queue(&mut self, domain: Domain) {
        let listener = Sock::tcp(domain);
        listener.bind_loopback();
        listener.listen(0);
        self.row(ends(&listener), "LISTEN", owner(&listener));
        let (first, second) = (Sock::tcp(domain), Sock::tcp(domain));
        first
            .connect(listener.local())
            .expect("the queue has one place");
        let waiting = reversed(ends(&first));
        self.open(first, "ESTABLISHED");
        second.connect_nonblocking(listener.local());
        self.open(second, "SYN_SENT");
        self.later.push((listener, None, self.rows.len()));
        self.row(waiting, "ESTABLISHED", "full owner=no_file".to_string());
    }

    /// A listener that waits for data (TCP_DEFER_ACCEPT): until it comes, its
    /// side of the connection is a request socket.
    fn deferred(&mut self, domain: Domain) {
        let listener = Sock::listener(domain);
        listener.set(libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 30 as libc::c_int);
        self.row(ends(&listener), "LISTEN", owner(&listener));
        let client = Sock::tcp(domain);
        client
            .connect(listener.local())
            .expect("the handshake is done for the client");
        let request = reversed(ends(&client));
        self.row(ends(&client), "ESTABLISHED", owner(&client));
        self.later.push((listener, Some(client), self.rows.len()));
        self.row(request, "SYN_RECV", "mini owner=minisocket".to_string());
    }

    fn bound(&mut self, domain: Domain) {
        let socket = Sock::tcp(domain);
        socket.bind_loopback();
        self.open(socket, "CLOSE");
        let socket = Sock::tcp(domain);
        socket.set(libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, 1 as libc::c_int);
        if netns::is_root() {
            // SAFETY: fchown(2) takes no pointers.
            netns::check(unsafe { libc::fchown(socket.raw(), 1234, u32::MAX) }).expect("as root");
        }
        socket.bind_loopback();
        self.row(
            Ends {
                ifindex: 1,
                ..ends(&socket)
            },
            "CLOSE",
            owner(&socket),
        );
        self.open.push(socket);
    }

    fn datagrams(&mut self, domain: Domain) {
        let connected = Sock::udp(domain);
        connected
            .connect(nobody(domain))
            .expect("a UDP connect asks nobody");
        self.open(connected, "ESTABLISHED");
        let bound = Sock::udp(domain);
        bound.bind_loopback();
        self.open(bound, "UNCONN");
    }

    /// Fills in the cookies of sockets that had no file when they were read.
    fn accept(&mut self) {
        for (listener, peer, place) in self.later.drain(..) {
            if let Some(peer) = &peer {
                peer.send(1);
            }
            self.rows[place].ends.cookie = listener.accept().cookie;
        }
    }

    fn lines(&self, chosen: impl Fn(&Ends) -> bool) -> Vec<String> {
        let rows = self.rows.iter().filter(|row| chosen(&row.ends));
        rows.map(Expected::line)
            .chain(["done 0".to_string()])
            .collect()
    }
}

fn owner(socket: &Sock) -> String {
    // SAFETY: a stat of zeros is valid, and fstat(2) fills it in.
    let stat = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        netns::check(libc::fstat(socket.raw(), &raw mut stat)).expect("an open socket");
        stat
    };
    format!("full uid={} inode={}", stat.st_uid, stat.st_ino)
}

/// The other end of a connection, whose cookie nobody has yet.
fn reversed(ends: Ends) -> Ends {
    Ends {
        local: ends.remote,
        remote: ends.local,
        cookie: 0,
        ..ends
    }
}

/// Lines without the cookies.
fn shapes(lines: &[String]) -> Vec<String> {
    let without = |line: &String| {
        line.split(' ')
            .filter(|word| !word.starts_with("cookie="))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut shapes: Vec<String> = lines.iter().map(without).collect();
    shapes.sort();
    shapes
}

#[test]
fn rows() {
    netns::run("capture::rows::rows", || {
        let netlink = sockwatch::sys::Netlink::open().expect("sock_diag");
        let tcp = Holds::Rows(Proto::Tcp);
        let nothing = dump(&netlink, Proto::Udp, Some(Family::V4));
        hold(
            "done-empty",
            &nothing,
            Holds::Rows(Proto::Udp),
            vec!["done 0".to_string()],
        );
        let mut unknown = request::dump(
            sockwatch::model::Coverage {
                proto: Proto::Udp,
                family: Some(Family::V4),
                groups: super::EVERY,
            },
            1,
        );
        // sdiag_protocol: one that has no diag module.
        unknown[17] = 99;
        let refused = ask(&netlink, &unknown);
        hold(
            "done-unknown-protocol",
            &refused,
            tcp,
            vec![format!("done {}", -libc::ENOENT)],
        );

        let mut scene = Scene::default();
        for domain in Domain::ALL {
            scene.connections(domain);
            scene.full_queue(domain);
            scene.deferred(domain);
            scene.bound(domain);
            scene.datagrams(domain);
        }
        // The last steps of some connections are the kernel's own.
        let wanted = shapes(&scene.lines(|ends| ends.proto == Proto::Tcp));
        let deadline = Instant::now() + PATIENCE;
        while shapes(&lines::read(&dump(&netlink, Proto::Tcp, None), tcp)) != wanted
            && Instant::now() < deadline
        {
            std::thread::yield_now();
        }
        let dumps = [
            ("legacy-tcp", Proto::Tcp, None),
            ("v2-tcp4", Proto::Tcp, Some(Family::V4)),
            ("v2-tcp6", Proto::Tcp, Some(Family::V6)),
            ("v2-udp4", Proto::Udp, Some(Family::V4)),
            ("v2-udp6", Proto::Udp, Some(Family::V6)),
        ]
        .map(|(name, proto, family)| (name, proto, family, dump(&netlink, proto, family)));
        scene.accept();
        for (name, proto, family, bytes) in dumps {
            let chosen =
                |ends: &Ends| ends.proto == proto && family.is_none_or(|of| of == ends.family);
            hold(name, &bytes, Holds::Rows(proto), scene.lines(chosen));
            agree(&bytes, proto);
        }
        exact(&netlink);
    });
}

/// netlink-packet-sock-diag reads the same rows.
fn agree(datagram: &[u8], proto: Proto) {
    use sockwatch::wire::sock_diag::{Body, Messages};
    for message in Messages::new(datagram) {
        if let Body::Socket(payload) = message.expect("the kernel's").body {
            assert_eq!(peer::differences(payload, proto), [""; 0]);
        }
    }
}

/// The answers about one socket: that it is there, and that it is not.
fn exact(netlink: &sockwatch::sys::Netlink) {
    let listener = Sock::listener(Domain::V4);
    let (client, server) = Sock::pair(&listener);
    let Ends {
        local,
        remote,
        cookie,
        ..
    } = ends(&server);
    let id = SockId::from_wire(
        Proto::Tcp,
        family(Domain::V4),
        (local.ip(), local.port()),
        (remote.ip(), remote.port()),
        0,
    );
    let question = request::exact(&id, Cookie(cookie), 1);
    let row = format!(
        "row {} ESTABLISHED {}",
        ends(&server).line(),
        owner(&server)
    );
    hold(
        "exact-tcp4",
        &ask(netlink, &question),
        Holds::Rows(Proto::Tcp),
        vec![row],
    );
    // A reset leaves nothing behind on either side.
    client.reset_on_close();
    drop(client);
    drop(server);
    proc_net::quiet();
    let gone = ask(netlink, &question);
    hold(
        "error-gone",
        &gone,
        Holds::Rows(Proto::Tcp),
        vec![format!("error {}", -libc::ENOENT)],
    );
}

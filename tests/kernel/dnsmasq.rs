//! A DNS server that many machines run, started by a test in its namespace.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::daemon::{PATIENCE, Scratch};
use crate::netns::{die_with_parent, visibly};

/// A running dnsmasq. It is killed when this is dropped.
#[derive(Debug)]
pub struct Dnsmasq {
    child: Child,
    _scratch: Scratch,
    /// Where it listens, by UDP and TCP.
    pub address: SocketAddr,
}

impl Dnsmasq {
    /// Starts it at port 53 of an address with these lines of configuration
    /// (dnsmasq(8), the long options), and waits until it answers. Without them it
    /// knows nothing and asks nobody. Where there is no dnsmasq, `name` says
    /// SKIPPED.
    pub fn start(name: &str, ip: IpAddr, lines: &str) -> Option<Dnsmasq> {
        let scratch = Scratch::new();
        let config = scratch.write(
            "dnsmasq.conf",
            &format!(
                "keep-in-foreground\nlog-facility=-\npid-file\nuser=root\nbind-interfaces\n\
                 listen-address={ip}\nno-hosts\nno-resolv\n{lines}"
            ),
        );
        let mut command = Command::new("dnsmasq");
        command
            .arg(format!("--conf-file={}", config.display()))
            .stdin(Stdio::null());
        // SAFETY: one system call.
        unsafe { command.pre_exec(die_with_parent) };
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                visibly(&format!("SKIPPED {name}: dnsmasq: {error}"));
                return None;
            }
        };
        let mut server = Dnsmasq {
            child,
            _scratch: scratch,
            address: SocketAddr::new(ip, 53),
        };
        server.await_answer();
        Some(server)
    }

    /// Asks for the root until something comes back; the refusal to connect, too,
    /// says that it is not there yet.
    fn await_answer(&mut self) {
        const QUERY: [u8; 17] = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let ended = self.child.try_wait().expect("one's own child");
            assert_eq!(ended, None, "dnsmasq does not stay");
            let any = if self.address.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            let socket = UdpSocket::bind(any).expect("a port");
            socket.connect(self.address).expect("UDP asks nobody");
            let pause = Duration::from_millis(50);
            socket.set_read_timeout(Some(pause)).expect("a timeout");
            if socket.send(&QUERY).is_ok() && socket.recv(&mut [0; 512]).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("dnsmasq does not answer");
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

//! What a DNS packet costs, from the packet socket to the names of an address.

use std::net::{Ipv4Addr, UdpSocket};
use std::rc::Rc;

use sockwatch::enrich::Resolved;
use sockwatch::model::Now;
use sockwatch::source::DnsTap;
use sockwatch::stats::Stats;

use super::Outcome;
use super::sample::{Cost, Spread, Whose};
use super::table::Line;

/// Look-ups that are read in one go, and how often.
const BATCH: u32 = 200;
const TURNS: u32 = 50;

/// A query for the address of the `number`th host.
fn query(number: u32) -> Vec<u8> {
    let mut packet = vec![0; 12];
    packet[..2].copy_from_slice(&(number as u16).to_be_bytes());
    packet[2] = 0x01; // recursion desired
    packet[5] = 1; // one question
    for label in [&format!("host{number}"), "example", "org"] {
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    // The root; type A, class IN.
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    packet
}

/// The answer to it: one address, for five minutes.
fn answer(number: u32) -> Vec<u8> {
    let mut packet = query(number);
    (packet[2], packet[3]) = (0x81, 0x80); // a response, recursion available
    packet[7] = 1; // one answer
    // The name of the question; type A, class IN, its time to live, four bytes.
    packet.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4]);
    packet.extend_from_slice(&Ipv4Addr::from_bits(0x0a00_0000 + number).octets());
    packet
}

/// Reads, parses, matches and learns what passes on loopback.
pub fn measure() -> Outcome<Vec<Line>> {
    let stats = Rc::new(Stats::default());
    let mut tap = match DnsTap::open(Rc::clone(&stats)) {
        Ok(tap) => tap,
        Err(error) => {
            println!("SKIPPED a DNS packet: {error}");
            return Ok(Vec::new());
        }
    };
    let mut resolved = Resolved::new(Rc::clone(&stats));
    let server = UdpSocket::bind("127.0.0.1:53")?;
    let client = UdpSocket::bind("127.0.0.1:0")?;
    client.connect(server.local_addr()?)?;
    let (mut buffer, mut each) = ([0; 512], Vec::new());
    for turn in 0..TURNS {
        for number in turn * BATCH..(turn + 1) * BATCH {
            client.send(&query(number))?;
            let (_, from) = server.recv_from(&mut buffer)?;
            server.send_to(&answer(number), from)?;
            client.recv(&mut buffer)?;
        }
        let (now, mut learned) = (Now::read(), 0);
        let (cost, drained) = Cost::of(Whose::Mine, || {
            tap.drain(now, &mut |answer| {
                learned += 1;
                resolved.learn(&answer, now);
            })
        })?;
        if learned != BATCH || drained.dropped > 0 {
            let dropped = drained.dropped;
            return Err(
                format!("of {BATCH} answers {learned} were learned, {dropped} dropped").into(),
            );
        }
        each.push(cost.cpu.as_nanos() as f64 / f64::from(2 * BATCH));
    }
    let Spread {
        median,
        least,
        most,
    } = Spread::of(each.into_iter());
    Ok(vec![Line::alone(
        "dns",
        "a DNS packet, CPU",
        format!("{median:.0} ({least:.0} to {most:.0}) ns"),
        "",
    )])
}

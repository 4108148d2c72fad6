//! What is carried over a restart, and to other sensors.

use super::*;
use crate::model::Renumbering;

impl Bench {
    /// The one sensor that is listened to.
    fn heard(&self) -> SensorIx {
        SensorIx(self.judge.unheard.count_ones() as u8)
    }

    /// Another run of the program, on what this one leaves.
    pub(super) fn restart(&mut self) {
        let heard = self.heard();
        let left: Vec<_> = self.sensor.in_view().collect();
        let primed = self.sensor.primed(heard);
        let now = self.now();
        let graves: Vec<_> = self.sensor.graves(now).collect();
        let stats = Rc::new(Stats::default());
        let mut sensor = NetSocket::new(NETNS, vec![view()], Needs::EVERYTHING, stats, now);
        sensor.count_from(self.ms);
        for grave in graves {
            sensor.restore_grave(grave, now);
        }
        sensor.resume(SensorIx(0), primed);
        let mut sensors = Renumbering::NONE;
        sensors.keep(heard, SensorIx(0));
        for mut socket in left {
            socket.in_view = sensors.mask(socket.in_view);
            if socket.in_view != 0 {
                sensor.restore(&socket);
            }
        }
        self.judge.unheard = 0;
        sensor.restored(&[], now, &mut self.judge);
        self.sensor = sensor;
    }

    /// Other sensors stand before the one that is listened to, and begin anew.
    pub(super) fn reload(&mut self, others: u8) {
        let mut sensors = Renumbering::NONE;
        sensors.keep(self.heard(), SensorIx(others));
        let views = (0..=others).map(|number| View {
            sensor: SensorIx(number),
            ..view()
        });
        self.judge.unheard = SensorIx(others).bit() - 1;
        let now = self.now();
        let views = views.collect();
        self.sensor
            .replace(views, Needs::EVERYTHING, &sensors, now, &mut self.judge);
    }
}

fn three() -> [Row; 3] {
    [
        row(1, id(Proto::Tcp, 1, 80), Established),
        row(2, id(Proto::Tcp, 2, 0), Listen),
        row(3, id(Proto::Udp, 3, 0), Close),
    ]
}

/// The kernel can be late with a notice, and the program be restarted meanwhile.
#[test]
fn a_late_notice_is_known_after_another_restart() {
    let mut bench = Bench::plain();
    let [connected, ..] = three();
    let ended = notice(1, connected.id, established());
    bench.dump_all(&[]);
    bench.dump_all(&[connected]);
    bench.judge.take();
    bench.restart();
    bench.dump_all(&[]);
    bench.answer(|_| None);
    let told = bench.judge.take();
    assert_eq!(told, [(1, Closed, Evidence::Restart, Established)]);
    bench.ms += 600;
    bench.restart();
    bench.dump_all(&[]);
    bench.notice(ended);
    assert_eq!(bench.judge.take(), []);
    // A minute later it would be another one's.
    bench.ms += 61_000;
    bench.restart();
    bench.dump_all(&[]);
    bench.notice(ended);
    assert_eq!(bench.judge.take().len(), 2);
}

#[test]
fn what_vanished_is_closed_and_what_came_is_opened() {
    let mut bench = Bench::plain();
    bench.dump_all(&three());
    bench.judge.take();
    bench.restart();
    let new = row(4, id(Proto::Tcp, 4, 80), Established);
    bench.dump_all(&[new]);
    assert_eq!(
        bench.judge.take(),
        [(4, Opened, Evidence::Dump, Established)]
    );
    bench.answer(|_| None);
    assert_eq!(
        bench.judge.take(),
        [(1, Closed, Evidence::Restart, Established)]
    );
    bench.dump_all(&[new]);
    let twice = [
        (2, Closed, Evidence::Restart, Listen),
        (3, Closed, Evidence::Restart, Close),
    ];
    assert_eq!(bench.judge.take(), twice);
    assert!(!bench.sensor.has_gap() || bench.sensor.settled_gap(bench.now()).is_none());
}

#[test]
fn a_notice_is_sooner_than_any_dump() {
    let mut bench = Bench::plain();
    bench.dump_all(&three());
    bench.judge.take();
    bench.restart();
    bench.notice(notice(1, three()[0].id, established()));
    bench.notice(notice(9, id(Proto::Tcp, 9, 80), established()));
    let told = [
        (1, Closed, Evidence::Notified, Established),
        (9, Opened, Evidence::Notified, Established),
        (9, Closed, Evidence::Notified, Established),
    ];
    assert_eq!(bench.judge.take(), told);
    bench.dump_all(&three()[1..]);
    bench.dump_all(&three()[1..]);
    assert_eq!(bench.judge.take(), []);
}

#[test]
fn what_was_perhaps_not_told_is_told_again() {
    let mut bench = Bench::plain();
    bench.dump_all(&three()[..1]);
    bench.judge.take();
    bench.restart();
    let (now, full) = (bench.now(), RowKind::Full);
    bench
        .sensor
        .restored(&[(Cookie(1), full, 1)], now, &mut bench.judge);
    assert_eq!(
        bench.judge.take(),
        [(1, Opened, Evidence::Restart, Established)]
    );
    bench.dump_all(&three()[..1]);
    assert_eq!(bench.judge.take(), []);
}

#[test]
fn a_new_view_is_silent_until_it_has_read_what_is_there() {
    let mut bench = Bench::plain();
    let now = bench.now();
    bench.dump_all(&three()[..1]);
    // A dump is under way that began before: what it holds was there.
    bench.sensor.begin_dump(coverages()[1], now);
    bench.sensor.row(three()[2], now);
    bench.reload(1);
    // Now the new view is the one that is listened to.
    bench.judge.unheard = 0b10;
    bench.judge.take();
    bench.sensor.end_dump(now, &mut bench.judge);
    bench.notice(notice(9, id(Proto::Udp, 9, 53), established()));
    bench.dump_all(&three());
    assert_eq!(
        bench.judge.take(),
        [],
        "all of it was there, or may have been"
    );
    let new = row(5, id(Proto::Udp, 5, 0), Close);
    bench.dump_all(&[three()[0], three()[1], three()[2], new]);
    bench.notice(notice(2, three()[1].id, TcpInfo::default()));
    let told = [
        (5, Opened, Evidence::Dump, Close),
        (2, Closed, Evidence::Notified, Listen),
    ];
    assert_eq!(bench.judge.take(), told);
}

#[test]
fn what_nobody_needs_is_forgotten_and_read_anew() {
    let mut bench = Bench::plain();
    bench.dump_all(&three());
    bench.judge.take();
    bench.judge.refused = vec![Close, Established];
    let listeners = Needs {
        tcp: StateGroups::LISTEN,
        udp: false,
    };
    let now = bench.now();
    let nobody = Renumbering::NONE;
    bench
        .sensor
        .replace(vec![view()], listeners, &nobody, now, &mut bench.judge);
    assert_eq!(bench.sensor.len(), 1, "only the listener is watched");
    bench.judge.refused.clear();
    bench.sensor.replace(
        vec![view()],
        Needs::EVERYTHING,
        &nobody,
        now,
        &mut bench.judge,
    );
    assert!(!bench.sensor.is_read(Proto::Udp));
    bench.dump_all(&three());
    assert_eq!(bench.judge.take(), []);
    assert_eq!(bench.sensor.in_view().count(), 3);
}

#[test]
fn ages_go_on() {
    let mut bench = Bench::plain();
    bench.sensor.count_from(5_000);
    bench.ms = 100;
    bench.dump_all(&three()[..1]);
    let saved: Vec<_> = bench.sensor.in_view().collect();
    assert_eq!(saved[0].first_seen_ms, 5_100);
    bench.restart();
    bench.sensor.count_from(6_000 - 100);
    bench.notice(notice(1, three()[0].id, established()));
    let Step::Closed { life, .. } = bench.judge.told[1].step else {
        panic!("an end");
    };
    assert_eq!(life, Some(Life::Seen { ms: 800 }));
}

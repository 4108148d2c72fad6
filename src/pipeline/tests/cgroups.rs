//! Records that wait for the path of a cgroup.

use std::io;

use super::*;
use crate::enrich::Cgroups;

/// A pipeline that finds no cgroup2, once it has looked; and how to hear that it
/// has.
fn bench() -> (Bench, Receiver<()>) {
    let mut bench = Bench::new(vec![stage(&[], false)]);
    let (wake, woken) = channel();
    // A test that is done looks no longer.
    let wake = Arc::new(move || wake.send(()).unwrap_or(()));
    let nowhere = || Err(io::Error::from_raw_os_error(libc::ENOENT));
    bench.pipeline.find_cgroups_with(Cgroups::of(nowhere, wake));
    (bench, woken)
}

fn within(cgroup: &Rc<Cgroup>, change: Change) -> Change {
    Change {
        cgroup: Ok(Rc::clone(cgroup)),
        ..change
    }
}

/// Action, and the path or why there is none.
fn told(bench: &Bench) -> Vec<(&'static str, String)> {
    let events = bench.kept.events.take().into_iter();
    let told = events.map(|event| match event.data {
        Data::Socket(data) => {
            let action = data.action.expect("an event").0.as_str();
            let cgroup = data.cgroup.expect("it was asked for").cgroup;
            let words = cgroup.map_or_else(|why| why.as_str().to_owned(), |it| it.path.to_string());
            (action, words)
        }
        other => panic!("{other:?}"),
    });
    told.collect()
}

fn service() -> CgroupAnswer {
    Ok(Arc::new(CgroupInfo {
        path: "/a.service".into(),
        unit: Some("a.service".into()),
        container: None,
    }))
}

fn each(words: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let words = words.iter();
    words
        .map(|(action, why)| (*action, (*why).to_owned()))
        .collect()
}

#[test]
fn records_of_a_cgroup_wait_in_order_until_it_is_found() {
    let (mut bench, woken) = bench();
    let cgroup = Rc::new(Cgroup::new(7));
    let now = bench.at(0);
    for cookie in [1, 2] {
        let change = within(&cgroup, opened(cookie, "10.0.0.9:80"));
        assert!(matches!(
            bench.pipeline.open(change, now),
            Verdict::Entered(_)
        ));
    }
    let end = within(&cgroup, closed(1, "10.0.0.9:80"));
    bench.pipeline.close(end, now);
    // One that nobody waits for does not wait either.
    let stranger = within(&cgroup, closed(3, "10.0.0.9:80"));
    bench.pipeline.close(stranger, now);
    assert_eq!(told(&bench), each(&[("closed", "timeout")]));
    woken.recv_timeout(Duration::from_secs(10)).unwrap();
    bench.pipeline.collect(bench.at(1));
    let none = "not_mounted";
    let expected = [("opened", none), ("opened", none), ("closed", none)];
    assert_eq!(told(&bench), each(&expected));
    assert_eq!(bench.pipeline.deadline(), None);
}

#[test]
fn what_is_known_is_told_at_once_and_stays_known() {
    let (mut bench, _woken) = bench();
    let cgroup = Rc::new(Cgroup::new(7));
    cgroup.learn(service());
    cgroup.learn(Err(CgroupUnknown::Gone));
    let now = bench.at(0);
    let open = within(&cgroup, opened(1, "10.0.0.9:80"));
    bench.pipeline.open(open, now);
    let end = within(&cgroup, closed(1, "10.0.0.9:80"));
    bench.pipeline.close(end, now);
    let path = "/a.service";
    assert_eq!(told(&bench), each(&[("opened", path), ("closed", path)]));
}

#[test]
fn after_its_time_a_record_goes_on_without() {
    let (mut bench, _woken) = bench();
    let cgroup = Rc::new(Cgroup::new(7));
    let open = within(&cgroup, opened(1, "10.0.0.9:80"));
    bench.pipeline.open(open, bench.at(0));
    assert_eq!(bench.pipeline.deadline(), Some(bench.at(250).mono));
    bench.pipeline.expire(bench.at(249));
    assert_eq!(told(&bench), []);
    bench.pipeline.expire(bench.at(250));
    assert_eq!(told(&bench), each(&[("opened", "timeout")]));
    assert_eq!(bench.stats.cgroups_timed_out.count(), 1);
    assert_eq!(bench.pipeline.deadline(), None);
}

#[test]
fn at_the_end_nothing_is_held_back() {
    let (mut bench, _woken) = bench();
    let cgroup = Rc::new(Cgroup::new(7));
    let open = within(&cgroup, opened(1, "10.0.0.9:80"));
    bench.pipeline.open(open, bench.at(0));
    bench.pipeline.finish(bench.at(1));
    let other = within(&cgroup, opened(2, "10.0.0.9:80"));
    bench.pipeline.open(other, bench.at(2));
    let expected = [("opened", "timeout"), ("opened", "timeout")];
    assert_eq!(told(&bench), each(&expected));
}

/// Else a later run would take the socket for open.
#[test]
fn an_end_that_nobody_is_told_is_noted_behind_the_opening() {
    let (mut bench, _woken) = bench();
    bench.pipeline.stages[0].closed = false;
    bench.pipeline.keep_journal(Netns(1));
    let cgroup = Rc::new(Cgroup::new(7));
    let open = within(&cgroup, opened(1, "10.0.0.9:80"));
    bench.pipeline.open(open, bench.at(0));
    let end = within(&cgroup, closed(1, "10.0.0.9:80"));
    bench.pipeline.close(end, bench.at(1));
    bench.pipeline.expire(bench.at(251));
    assert_eq!(told(&bench), each(&[("opened", "timeout")]));
    let journal = bench.pipeline.journal_mut().unwrap();
    assert_eq!(journal.leaving().count(), 1, "it has ended");
}

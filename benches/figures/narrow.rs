//! What is gained where patterns allow the kernel to leave rows out of a dump:
//! literal ports, and listeners alone.

use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use sockwatch::filter::Filter;
use sockwatch::model::{Needs, Netns, Now, Proto, StateGroups};
use sockwatch::source::diag::{Progress, Scope};
use sockwatch::source::dumps::Dumps;
use sockwatch::stats::Stats;
use sockwatch::wire::bytecode::Condition;

use super::Outcome;
use super::holders;
use super::sample::{Cost, Pairs, Whose};
use super::table::Line;

/// Connections of the port that is sought.
const SOUGHT: usize = 5;
/// Each comparison ends after this, however slow the machine is.
const BUDGET: Duration = Duration::from_secs(5);

const TCP: Needs = Needs {
    tcp: StateGroups::ALL,
    udp: false,
};

/// Asks for what is needed, and reads all rows; how many there were.
fn dump(scope: &mut Scope, needs: Needs, condition: Option<&Condition>) -> Outcome<u64> {
    let mut dumps = Dumps::default();
    dumps.ask(needs);
    let (now, mut rows) = (Now::read(), 0);
    while let Some(asked) = dumps.next(now.mono, false) {
        scope
            .begin_where(asked.coverage, condition, now)
            .map_err(|error| error.to_string())?;
        loop {
            match scope.read(now, &mut |_| rows += 1) {
                Progress::More => {}
                Progress::Done(_) => break,
                other => return Err(format!("a dump ended as {other:?}").into()),
            }
        }
    }
    Ok(rows)
}

/// Dumps of the TCP sockets there are, narrowed against whole.
pub fn measure() -> Outcome<Vec<Line>> {
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let held = (0..SOUGHT).map(|number| holders::connection(&listener, number));
    let _held = held.collect::<Result<Vec<_>, _>>()?;
    let port = listener.local_addr()?.port();
    let mut scope = Scope::open(Netns(sockwatch::sys::netns()?), Rc::new(Stats::default()))?;
    let all = dump(&mut scope, TCP, None)?;
    let mut lines = Vec::new();
    for (name, pattern, least) in [
        ("one port", format!("tcp *:{port} * * *"), SOUGHT as u64 + 1),
        ("listeners", "tcp * * * LISTEN".into(), 1),
    ] {
        let filter = Filter::new(&[pattern], &[])?;
        let needs = filter.needs();
        let condition = Condition::of(&filter.sought(Proto::Tcp));
        let told = dump(&mut scope, needs, condition.as_ref())?;
        // Half of all sockets here have no peer at most: listeners.
        if told < least || told > all / 2 || scope.is_unconditional() {
            return Err(format!("{told} of {all} rows were told for {name}").into());
        }
        let mut narrow = || {
            Cost::of(Whose::Mine, || dump(&mut scope, needs, condition.as_ref()))
                .map(|(cost, _)| cost)
        };
        let mut other = Scope::open(Netns(sockwatch::sys::netns()?), Rc::new(Stats::default()))?;
        let mut whole =
            || Cost::of(Whose::Mine, || dump(&mut other, TCP, None)).map(|(cost, _)| cost);
        let pairs = Pairs::take(50, BUDGET, &mut narrow, &mut whole)?;
        let figure = format!("a dump of {name}, {told} of {all}, CPU");
        lines.push(Line::alone("narrow", figure, "", "").against(
            pairs.spread(|cost| cost.cpu),
            ("us", 1e3),
            "the whole dump",
        ));
    }
    Ok(lines)
}

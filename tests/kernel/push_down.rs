//! What patterns allow is asked of the kernel, and nobody notices.

use std::collections::BTreeSet;
use std::rc::Rc;

use sockwatch::filter::Filter;
use sockwatch::model::{
    Coverage, Family, Netns, Now, Proto, Row, RowKind, SockId, Sought, StateGroups, TcpState,
};
use sockwatch::source::diag::{Progress, Scope};
use sockwatch::stats::Stats;
use sockwatch::wire::bytecode::Condition;

use crate::dump::sample;
use crate::netns;

/// All rows of both protocols, as the kernel gives them under a condition.
fn rows(scope: &mut Scope, sought: Option<&[Sought; 2]>) -> Vec<Row> {
    let mut rows = Vec::new();
    let (v4, v6) = (Some(Family::V4), Some(Family::V6));
    for (proto, family) in [
        (Proto::Tcp, None),
        (Proto::Tcp, v4),
        (Proto::Tcp, v6),
        (Proto::Udp, v4),
        (Proto::Udp, v6),
    ] {
        let coverage = Coverage {
            proto,
            family,
            groups: StateGroups::ALL,
        };
        let code = sought.and_then(|sought| Condition::of(&sought[proto as usize]));
        scope
            .begin_where(coverage, code.as_ref(), Now::read())
            .expect("a dump begins");
        loop {
            match scope.read(Now::read(), &mut |row| rows.push(row)) {
                Progress::Done(_) => break,
                Progress::More => {}
                other => panic!("{other:?}"),
            }
        }
    }
    rows
}

/// What tells rows apart, of those that stay.
fn keys<'a>(rows: impl Iterator<Item = &'a Row>) -> BTreeSet<String> {
    let lasting = rows.filter(|row| row.kind == RowKind::Full);
    lasting
        .map(|row| {
            format!(
                "{:?} {:?} {:?} {:?}",
                row.cookie, row.id, row.state, row.kind
            )
        })
        .collect()
}

fn passes(filter: &Filter, id: &SockId, state: TcpState) -> bool {
    filter.judge(id, state, Some("-")) == sockwatch::filter::Answer::Pass
}

/// The real kernel takes the code, and weighs each socket as is written here.
#[test]
fn the_kernel_leaves_out_what_nobody_wants_and_nothing_else() {
    netns::run(
        "push_down::the_kernel_leaves_out_what_nobody_wants_and_nothing_else",
        || {
            let _sample = sample();
            let stats = Rc::new(Stats::default());
            let mut scope = Scope::open(Netns(1), Rc::clone(&stats)).expect("a scope");
            let all = rows(&mut scope, None);
            let mut lists: Vec<(Vec<String>, Vec<String>)> = Vec::new();
            for row in all.iter().step_by(4) {
                let (local, remote) = (row.id.local, row.id.remote);
                for pattern in [
                    format!("* {local} * * *"),
                    format!("* * {remote} * *"),
                    format!("*:{} *", local.port),
                    format!("* *:{} *:{} * *", local.port, remote.port),
                    format!("{}* {local} {remote} * *", row.id.proto.as_str()),
                ] {
                    lists.push((vec![pattern.clone()], Vec::new()));
                    lists.push((Vec::new(), vec![pattern]));
                }
            }
            let both: Vec<String> = lists
                .iter()
                .take(9)
                .flat_map(|(patterns, _)| patterns.clone())
                .collect();
            lists.push((both.clone(), Vec::new()));
            lists.push((
                both,
                vec!["* 127.0.0.1:* * * *".into(), "* * [::1]:* * *".into()],
            ));
            lists.dedup();
            let (mut narrow, lasting) = (0, keys(all.iter()).len());
            for (patterns, ignore) in lists {
                let Ok(filter) = Filter::new(&patterns, &ignore) else {
                    continue;
                };
                for once in [true, false] {
                    let sought = Proto::ALL.map(|proto| match once {
                        true => filter.sought_in_dump(proto),
                        false => filter.sought(proto),
                    });
                    let told = rows(&mut scope, Some(&sought));
                    let expected = all
                        .iter()
                        .filter(|row| sought[row.id.proto as usize].wants(&row.id));
                    let (told, expected) = (keys(told.iter()), keys(expected));
                    let differ: Vec<_> = told.symmetric_difference(&expected).collect();
                    assert!(
                        differ.is_empty(),
                        "{patterns:?} {ignore:?} {once}: {differ:?}"
                    );
                    narrow += usize::from(told.len() < lasting);
                    let passing = |row: &&Row| {
                        passes(&filter, &row.id, row.state)
                            && (once || row.state != TcpState::TimeWait)
                    };
                    let missing = &keys(all.iter().filter(passing)) - &told;
                    assert!(missing.is_empty(), "{patterns:?} {ignore:?}: {missing:?}");
                }
            }
            assert!(
                narrow > 100,
                "only {narrow} dumps held less than everything"
            );
            assert!(!scope.is_unconditional(), "a condition was refused");
            assert_eq!(stats.conditions_refused.count(), 0);
        },
    );
}

/// A condition that no kernel takes stands for a kernel that takes none.
#[test]
fn a_kernel_that_takes_no_condition_gives_all_rows() {
    netns::run(
        "push_down::a_kernel_that_takes_no_condition_gives_all_rows",
        || {
            let _sample = sample();
            let stats = Rc::new(Stats::default());
            let mut scope = Scope::open(Netns(1), Rc::clone(&stats)).expect("a scope");
            let all = rows(&mut scope, None);
            let coverage = Coverage {
                proto: Proto::Tcp,
                family: None,
                groups: StateGroups::ALL,
            };
            let unknown = Condition {
                code: Some(Box::new([99, 4, 8, 0])),
                listeners: false,
            };
            scope
                .begin_where(coverage, Some(&unknown), Now::read())
                .expect("it is refused later");
            let mut told = Vec::new();
            loop {
                match scope.read(Now::read(), &mut |row| told.push(row)) {
                    Progress::Done(_) => break,
                    Progress::More => {}
                    other => panic!("{other:?}"),
                }
            }
            let tcp = all.iter().filter(|row| row.id.proto == Proto::Tcp);
            assert_eq!(keys(told.iter()), keys(tcp));
            assert!(scope.is_unconditional());
            assert_eq!(stats.conditions_refused.count(), 1);
            assert_eq!(stats.dumps_failed.count(), 0);
        },
    );
}

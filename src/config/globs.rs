//! Whether globs can do in a sensor what they seem to be meant for.

use std::rc::Rc;

use crate::filter::{About, Glob, GlobError, Subject};
use crate::log::Plain;
use crate::model::{Proto, TcpState};

use super::check::Checked;
use super::problem::{Problem, quoted};
use super::schema::Item;
use super::tree::View;

impl Checked<'_> {
    /// Whether a glob can match anything.
    pub(super) fn glob(&mut self, item: View<'_>, text: &str, subject: Subject) {
        if text.ends_with('\n') {
            let found = format!("glob {} that ends with a line feed", quoted(text));
            let expected = "one line (`|-` or `>-` instead of `|` or `>`)";
            return self.problem(item.spot(), found, expected);
        }
        if let Err(error) = self.globs.compile(text, subject) {
            let expected = Item::Glob(subject).expected();
            self.problem(item.spot(), bad(text, &error), expected);
        }
    }

    /// The globs of one `args`, each by itself: what it makes of the remote host.
    pub(super) fn hosts(&mut self, args: View<'_>, subject: Subject) {
        let dns = args.entry("dns").and_then(|dns| dns.value.scalar());
        let dns = match dns {
            Some(dns) => dns.text.eq_ignore_ascii_case("true"),
            None => subject == Subject::Connects,
        };
        for list in ["patterns", "ignore"] {
            let items = args.entry(list).and_then(|entry| entry.value.items());
            for item in items.into_iter().flatten() {
                let Some(text) = item.text() else { continue };
                let Ok(glob) = self.globs.compile(text, subject) else {
                    continue;
                };
                let warning = match dns {
                    false => host_without_dns(text, &glob)
                        .map(|found| Problem::new(found, "`dns: true`, or `*` for the host")),
                    true if list == "ignore" => self.host_unnamed(text, &glob, subject),
                    true => None,
                };
                self.warnings.extend(warning.map(|it| it.at(item.spot())));
            }
        }
    }

    /// What the patterns of one `args` make of minisockets.
    pub(super) fn minisockets(&mut self, args: View<'_>) {
        let items = args.entry("patterns").and_then(|it| it.value.items());
        let patterns = items.into_iter().flatten().filter_map(|item| {
            let text = item.text()?;
            Some((item, text, self.globs.compile(text, Subject::Sockets).ok()?))
        });
        for (item, told) in unwatched(&patterns.collect::<Vec<_>>()) {
            match told {
                Unwatched::Whole(problem) => self.problems.push(problem.at(item.spot())),
                Unwatched::Part(problem) => self.warnings.push(problem.at(item.spot())),
            }
        }
    }

    /// Peers choose their names: one must not be able to hide by its name alone
    /// from who only meant to ignore an address.
    fn host_unnamed(&self, text: &str, glob: &Glob, subject: Subject) -> Option<Problem> {
        glob.strays_into_host().then(|| {
            let found = format!(
                "ignore {} that a remote host's name can match",
                quoted(text)
            );
            let expected = "all five words, one of them the host";
            Problem::new(found, expected).meant(self.globs.in_five_words(text, subject))
        })
    }
}

/// The message for a glob that needs a name where nobody looks it up; none for
/// others.
pub(super) fn host_without_dns(text: &str, glob: &Glob) -> Option<String> {
    glob.needs_name()
        .then(|| format!("glob {} on the remote host without dns", quoted(text)))
}

/// A pattern that is about minisockets which open nothing.
pub(super) enum Unwatched {
    /// And can match nothing else.
    Whole(Problem),
    /// And can match something else too.
    Part(Problem),
}

/// Minisockets are watched for the sake of a literal last word alone; finds the
/// other patterns that are about them, unless one has that word. SYN_RECV is no
/// minisocket alone: full sockets are in it too (TCP Fast Open).
pub(super) fn unwatched<T: Copy>(patterns: &[(T, &str, Rc<Glob>)]) -> Vec<(T, Unwatched)> {
    let mut found = Vec::new();
    for state in [TcpState::TimeWait, TcpState::SynRecv] {
        if patterns.iter().any(|(_, _, glob)| glob.watches(state)) {
            continue;
        }
        let word = state.as_str(Proto::Tcp);
        for (at, text, glob) in patterns {
            let about = glob.about(state);
            let useless = about == About::Only && state == TcpState::TimeWait;
            let does = match about {
                About::Others => continue,
                _ if useless => "opens nothing",
                _ => "opens none of its minisockets",
            };
            let told = Problem::new(
                format!("pattern {} that matches {word} and {does}", quoted(text)),
                format!("`{word}` itself as the last word of a pattern"),
            );
            let told = if useless {
                Unwatched::Whole(told)
            } else {
                Unwatched::Part(told)
            };
            found.push((*at, told));
        }
    }
    found
}

/// The message for a glob that cannot be compiled.
pub(super) fn bad(glob: &str, error: &GlobError) -> String {
    let before = glob
        .char_indices()
        .take_while(|(offset, _)| *offset < error.offset);
    let hint = match &error.hint {
        Some(hint) => format!("; {}", Plain(hint)),
        None => String::new(),
    };
    format!(
        "bad glob {} (character {}: {}{hint})",
        quoted(glob),
        before.count() + 1,
        Plain(&error.message)
    )
}

//! Whether globs can do in a sensor what they seem to be meant for.

use crate::filter;
use crate::log::Plain;

use super::check::Checked;
use super::problem::{Problem, quoted};
use super::schema::Item;
use super::tree::View;

impl Checked<'_> {
    /// Whether a glob can match anything.
    pub(super) fn glob(&mut self, item: View<'_>, text: &str) {
        if let Err(error) = self.globs.compile(text) {
            self.problem(item.spot(), bad(text, &error), Item::Glob.expected());
        }
    }

    /// The globs of one `args`, each by itself: what it makes of the remote host.
    pub(super) fn hosts(&mut self, args: View<'_>) {
        let dns = args.entry("dns").and_then(|dns| dns.value.scalar());
        let dns = dns.is_some_and(|dns| dns.text.eq_ignore_ascii_case("true"));
        for list in ["patterns", "ignore"] {
            let items = args.entry(list).and_then(|entry| entry.value.items());
            for item in items.into_iter().flatten() {
                let Some(text) = item.text() else { continue };
                let Ok(glob) = self.globs.compile(text) else {
                    continue;
                };
                let warning = match dns {
                    false => host_without_dns(text, &glob)
                        .map(|found| Problem::new(found, "`dns: true`, or `*` for the host")),
                    true if list == "ignore" => self.host_unnamed(text, &glob),
                    true => None,
                };
                self.warnings.extend(warning.map(|it| it.at(item.spot())));
            }
        }
    }

    /// Peers choose their names: one must not be able to hide by its name alone
    /// from who only meant to ignore an address.
    fn host_unnamed(&self, text: &str, glob: &filter::Glob) -> Option<Problem> {
        glob.strays_into_host().then(|| {
            let found = format!(
                "ignore {} that a remote host's name can match",
                quoted(text)
            );
            let expected = "all five words, one of them the host";
            Problem::new(found, expected).meant(self.globs.in_five_words(text))
        })
    }
}

/// The message for a glob that needs a name where nobody looks it up; none for
/// others.
pub(super) fn host_without_dns(text: &str, glob: &filter::Glob) -> Option<String> {
    glob.needs_name()
        .then(|| format!("glob {} on the remote host without dns", quoted(text)))
}

/// The message for a glob that cannot be compiled.
pub(super) fn bad(glob: &str, error: &filter::GlobError) -> String {
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

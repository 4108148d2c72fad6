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

    /// The remote host is `-` and nothing else while no names are looked up.
    pub(super) fn hosts_without_dns(&mut self, args: View<'_>) {
        let dns = args.entry("dns").and_then(|dns| dns.value.scalar());
        if dns.is_some_and(|dns| dns.text.eq_ignore_ascii_case("true")) {
            return;
        }
        for list in ["patterns", "ignore"] {
            let Some(items) = args.entry(list).and_then(|entry| entry.value.items()) else {
                continue;
            };
            for (item, text) in items.filter_map(|item| Some((item, item.text()?))) {
                let Ok(glob) = self.globs.compile(text) else {
                    continue;
                };
                if let Some(found) = host_without_dns(text, &glob) {
                    let warning = Problem::new(found, "`dns: true`, or `*` for the host");
                    self.warnings.push(warning.at(item.spot()));
                }
            }
        }
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

//! What the path of a cgroup says: the systemd unit and the container.
//!
//! Pure, and without any knowledge of which of them runs here: systemd names its
//! directories after units, and container managers name theirs after the
//! container's id, with the driver's or their own name before it. The shapes
//! stand in fixtures/cgroups.

use crate::model::CgroupInfo;

/// The units that have processes of their own (systemd.unit(5)); slices have
/// none but those of what is in them.
const UNITS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];

/// The longest unit name (UNIT_NAME_MAX in systemd, with its NUL).
const LONGEST: usize = 255;

/// How long the id of a container is, in hexadecimal digits.
const ID: usize = 64;

/// Reads a path below the root of the hierarchy. Bytes that are no text are
/// replaced.
pub fn read(path: &[u8]) -> CgroupInfo {
    let path = String::from_utf8_lossy(path);
    let parts = || path.split('/').rev();
    let ends = |part: &&str| UNITS.iter().any(|end| is_unit(part, end));
    let unit = parts()
        .map(unescaped)
        .find(ends)
        .or_else(|| parts().map(unescaped).find(|part| is_unit(part, ".slice")));
    CgroupInfo {
        unit: unit.map(Into::into),
        container: parts().find_map(container).map(Into::into),
        path: path.into(),
    }
}

/// The container that the text of /proc/PID/cgroup tells (cgroups(7)): in whatever
/// hierarchy has one.
pub fn container_in(text: &[u8]) -> Option<String> {
    let mut lines = text.split(|byte| *byte == b'\n');
    lines.find_map(|line| {
        let path = line.splitn(3, |byte| *byte == b':').nth(2)?;
        read(path).container.map(String::from)
    })
}

/// systemd puts `_` before a name that the kernel would take for a file of its
/// own (cg_escape), and before one that has it already. The `\x2d` in a unit's
/// name is part of the name, and stays.
fn unescaped(part: &str) -> &str {
    part.strip_prefix('_').unwrap_or(part)
}

fn is_unit(part: &str, end: &str) -> bool {
    let usable = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    part.len() <= LONGEST
        && part
            .strip_suffix(end)
            .is_some_and(|name| !name.is_empty() && name.bytes().all(usable))
}

/// The id at the end of a part: alone, or behind the name of who made it. conmon
/// watches over a container without being in it.
fn container(part: &str) -> Option<&str> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let (maker, id) = part.rsplit_once(['-', ':']).unwrap_or(("", part));
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_id = id.len() == ID && id.bytes().all(is_digit);
    (is_id && !maker.ends_with("conmon")).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_shapes_of_the_fixtures() {
        let text = include_str!("../../../fixtures/cgroups/paths.txt");
        let mut count = 0;
        for case in text.split("\n\n").filter(|case| !case.trim().is_empty()) {
            let lines: Vec<&str> = case.lines().filter(|line| !line.starts_with('#')).collect();
            let field = |name: &str| {
                let value = lines.iter().find_map(|line| line.strip_prefix(name));
                value.map(|value| value.trim_start().into())
            };
            let path: Box<str> = field("path").unwrap_or_else(|| panic!("no path in {case}"));
            let expected = CgroupInfo {
                unit: field("unit"),
                container: field("container"),
                path: path.clone(),
            };
            assert_eq!(read(path.as_bytes()), expected, "{case}");
            let fields = 1
                + usize::from(expected.unit.is_some())
                + usize::from(expected.container.is_some());
            assert_eq!(lines.len(), fields, "a line that is no field in {case}");
            count += 1;
        }
        assert!(count >= 20, "only {count} fixtures");
    }

    #[test]
    fn a_container_is_told_by_whatever_hierarchy_has_it() {
        let id = "0123456789abcdef".repeat(4);
        let of = |text: String| container_in(text.as_bytes());
        let docker = format!("0::/system.slice/docker-{id}.scope\n");
        assert_eq!(of(docker), Some(id.clone()));
        let hybrid = format!("12:pids:/docker/{id}\n0::/\n");
        assert_eq!(of(hybrid), Some(id));
        assert_eq!(of("0::/user.slice/a:b:c\n".to_owned()), None);
        assert_eq!(of(String::new()), None);
    }

    proptest! {
        #[test]
        fn any_path_is_read(path in prop::collection::vec(any::<u8>(), 0..300)) {
            let info = read(&path);
            prop_assert!(info.unit.is_none_or(|unit| unit.len() <= LONGEST && unit.is_ascii()));
            prop_assert!(info.container.is_none_or(|id| id.len() == ID));
        }

        /// What is in a container cannot pass for another: its own cgroups lie
        /// below, and only a whole id counts.
        #[test]
        fn only_a_whole_id_counts(before in "[0-9a-f]{0,80}", after in "[g-z.]{0,3}") {
            let info = read(format!("/docker/{before}{after}").as_bytes());
            let is_id = before.len() == ID && after.is_empty();
            prop_assert_eq!(info.container.is_some(), is_id);
        }
    }
}

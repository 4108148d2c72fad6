//! Where a socket belongs, as a record tells it: `cgroup` is the path, `unit` and
//! `container` are what it says of systemd's and of a container manager's doing.
//! `cgroup_id` is there wherever the kernel told it, also when no path was found.

use std::io::{self, Write};

use super::object::Object;
use crate::log::Plain;
use crate::model::Placed;

/// How many digits of a container's id a person wants to see.
const SHORT: usize = 12;

/// Writes `cgroup`, `cgroup_id`, `unit` and `container`.
pub(super) fn write_placed(placed: &Placed, out: &mut Object<'_>) {
    match &placed.cgroup {
        Ok(info) => out.text("cgroup", &info.path),
        Err(why) => {
            out.null("cgroup");
            out.word("cgroup_reason", why.as_str());
        }
    }
    match (placed.id, &placed.cgroup) {
        (Some(id), _) => out.number("cgroup_id", id),
        (None, Ok(_)) => out.null("cgroup_id"),
        (None, Err(why)) => {
            out.null("cgroup_id");
            out.word("cgroup_id_reason", why.as_str());
        }
    }
    let Ok(info) = &placed.cgroup else {
        return;
    };
    if let Some(unit) = &info.unit {
        out.text("unit", unit);
    }
    if let Some(container) = &info.container {
        out.text("container", container);
    }
}

/// Appends what a person knows it by: the container, else the unit.
pub(super) fn details(placed: &Placed, out: &mut Vec<u8>) -> io::Result<()> {
    let Ok(info) = &placed.cgroup else {
        return Ok(());
    };
    match (&info.container, &info.unit) {
        (Some(id), _) => write!(out, " container={}", Plain(id.get(..SHORT).unwrap_or(id))),
        (None, Some(unit)) => write!(out, " unit={}", Plain(unit)),
        (None, None) => Ok(()),
    }
}

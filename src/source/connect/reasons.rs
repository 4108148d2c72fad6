//! Why a hook cannot be had, in words that help.
//!
//! The kernel's answer is one number, mostly EPERM, for a dozen reasons. What
//! else the machine tells of itself narrows them down; where it does not, the
//! reason says "perhaps".

use std::fs;
use std::io;

use super::Tried;
use crate::model::Origin;

const CAPABILITIES: [(&str, u32); 3] =
    [("CAP_NET_ADMIN", 12), ("CAP_PERFMON", 38), ("CAP_BPF", 39)];
/// Stands for all of them (capabilities(7)).
const CAP_SYS_ADMIN: u32 = 21;

/// The first kernel with a ring buffer, CAP_BPF and both helpers for the cgroup
/// hook.
const OLDEST: (u32, u32) = (5, 8);

/// What the machine tells of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// The mode of lockdown that is in force (kernel_lockdown(7)).
    pub lockdown: Option<String>,
    /// The active LSMs, in order.
    pub lsms: Option<Vec<String>>,
    /// Capabilities that are needed and not held.
    pub missing: Vec<&'static str>,
    /// The kernel's release, as in uname(2).
    pub release: String,
}

impl Facts {
    /// Asks the machine. What cannot be read is not known.
    pub fn read() -> Facts {
        let text = |path: &str| fs::read_to_string(path).ok();
        Facts {
            lockdown: text("/sys/kernel/security/lockdown").and_then(|text| lockdown(&text)),
            lsms: text("/sys/kernel/security/lsm")
                .map(|text| text.trim().split(',').map(str::to_string).collect()),
            missing: text("/proc/thread-self/status").map_or(Vec::new(), |text| missing(&text)),
            release: text("/proc/sys/kernel/osrelease")
                .map_or_else(String::new, |text| text.trim().to_string()),
        }
    }

    fn too_old(&self) -> bool {
        let mut numbers = self
            .release
            .split(|c: char| !c.is_ascii_digit())
            .map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < OLDEST,
            _ => false,
        }
    }

    /// Why `step` failed for `hook`, when the kernel answered `error`.
    pub fn explain(&self, hook: Origin, step: &str, error: &io::Error) -> Tried {
        let (detail, remedy) = self.cause(hook, error.raw_os_error());
        let detail = detail.map_or_else(String::new, |detail| format!("; {detail}"));
        Tried {
            hook,
            reason: format!("{step}: {error}{detail}"),
            remedy,
        }
    }

    fn cause(&self, hook: Origin, errno: Option<i32>) -> (Option<String>, Option<&'static str>) {
        if self.too_old() {
            return (
                Some(format!("the kernel is Linux {}", self.release)),
                Some("use Linux 5.8 or later"),
            );
        }
        match errno {
            // A helper that is withheld makes the verifier answer EINVAL.
            Some(libc::EPERM | libc::EACCES | libc::EINVAL) if !self.missing.is_empty() => (
                Some(format!("{} missing", self.missing.join(", "))),
                Some("run sockwatch as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"),
            ),
            Some(libc::EPERM | libc::EACCES | libc::EINVAL)
                if hook != Origin::Cgroup
                    && self.lockdown.as_deref() == Some("confidentiality") =>
            {
                (
                    Some("lockdown=confidentiality".to_string()),
                    Some("boot without lockdown=confidentiality (integrity does not forbid it)"),
                )
            }
            Some(libc::EPERM | libc::EACCES | libc::EINVAL)
                if hook != Origin::Cgroup && self.lockdown.is_none() =>
            {
                (
                    Some(
                        "perhaps lockdown=confidentiality, a security policy or a user namespace"
                            .to_string(),
                    ),
                    Some("mount securityfs at /sys/kernel/security, so that lockdown can be told"),
                )
            }
            Some(libc::EPERM | libc::EACCES) => (
                Some("perhaps a security policy or a user namespace".to_string()),
                Some("run sockwatch outside of containers"),
            ),
            Some(libc::EINVAL) => (
                None,
                Some("SOCKWATCH_LOG=debug tells what the verifier says"),
            ),
            Some(libc::ENOMEM) => (
                None,
                Some("allow more locked memory (ulimit -l) or memory for the control group"),
            ),
            Some(libc::ENOSYS) => (
                Some("the kernel has no BPF".to_string()),
                Some("use a kernel built with CONFIG_BPF_SYSCALL"),
            ),
            // ENOTSUPP, which only the kernel itself has (linux/errno.h).
            Some(libc::EOPNOTSUPP | 524) => (
                Some("the kernel is built without it".to_string()),
                match hook {
                    Origin::Lsm => Some("use a kernel built with CONFIG_BPF_LSM"),
                    Origin::Cgroup => Some("use a kernel built with CONFIG_CGROUP_BPF"),
                    _ => Some("use a kernel built with CONFIG_FUNCTION_TRACER and CONFIG_BPF_JIT"),
                },
            ),
            _ => (None, None),
        }
    }

    /// Why there is no point in trying `lsm`, if there is none: a program can be
    /// attached where the BPF LSM is not active, but is never called.
    pub fn no_bpf_lsm(&self) -> Option<Tried> {
        let lsms = self.lsms.as_ref()?;
        (!lsms.iter().any(|lsm| lsm == "bpf")).then(|| Tried {
            hook: Origin::Lsm,
            reason: format!("bpf is not among the active LSMs ({})", lsms.join(",")),
            remedy: Some("add bpf to the lsm= parameter of the kernel's command line"),
        })
    }
}

/// The word in brackets: `none [integrity] confidentiality`.
fn lockdown(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    let (mode, _) = rest.split_once(']')?;
    Some(mode.to_string())
}

/// What CapEff in /proc/PID/status lacks (proc(5)). None where it does not say.
fn missing(status: &str) -> Vec<&'static str> {
    let held = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    let Some(held) = held else {
        return Vec::new();
    };
    let has = |bit: u32| held & (1 << bit) != 0;
    if has(CAP_SYS_ADMIN) {
        return Vec::new();
    }
    CAPABILITIES
        .into_iter()
        .filter(|(_, bit)| !has(*bit))
        .map(|(name, _)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            lockdown: Some("none".to_string()),
            release: "6.18.44-cloud-amd64".to_string(),
            ..Facts::default()
        }
    }

    fn eperm(facts: &Facts, hook: Origin) -> Tried {
        let error = io::Error::from_raw_os_error(libc::EPERM);
        facts.explain(hook, "the program cannot be loaded", &error)
    }

    #[test]
    fn missing_capabilities_are_named() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t0000004000001000\n";
        assert_eq!(missing(status), ["CAP_BPF"]);
        assert_eq!(
            missing("CapEff:\t0000000000000000\n"),
            ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]
        );
        // CAP_SYS_ADMIN alone is enough, and root has everything.
        assert!(missing("CapEff:\t0000000000200000\n").is_empty());
        assert!(missing("CapEff:\t000001ffffffffff\n").is_empty());
        assert!(missing("nothing of the kind").is_empty());

        let facts = Facts {
            missing: missing(status),
            ..facts()
        };
        let tried = eperm(&facts, Origin::Cgroup);
        assert_eq!(
            tried.reason,
            "the program cannot be loaded: Operation not permitted (os error 1); CAP_BPF missing"
        );
        assert!(
            tried
                .remedy
                .is_some_and(|remedy| remedy.contains("CAP_BPF"))
        );
    }

    #[test]
    fn lockdown_is_named_where_it_is_the_reason() {
        assert_eq!(
            lockdown("none integrity [confidentiality]\n").as_deref(),
            Some("confidentiality")
        );
        assert_eq!(lockdown("").as_deref(), None);
        let locked = Facts {
            lockdown: Some("confidentiality".to_string()),
            ..facts()
        };
        let tried = eperm(&locked, Origin::Fentry);
        assert!(
            tried.reason.ends_with("; lockdown=confidentiality"),
            "{tried:?}"
        );
        // It does not forbid the cgroup hook, so that failed for another reason.
        assert!(!eperm(&locked, Origin::Cgroup).reason.contains("lockdown"));
        assert!(!eperm(&facts(), Origin::Lsm).reason.contains("lockdown"));
        // Where it cannot be known it is not asserted.
        let unknown = Facts {
            lockdown: None,
            ..facts()
        };
        assert!(
            eperm(&unknown, Origin::Lsm)
                .reason
                .contains("perhaps lockdown")
        );
    }

    #[test]
    fn an_old_kernel_is_the_first_reason() {
        for (release, old) in [
            ("4.19.0-27-amd64", true),
            ("5.7.19", true),
            ("5.8.0", false),
            ("6.1.0-9-cloud-amd64", false),
            ("10.0", false),
            ("", false),
        ] {
            let facts = Facts {
                release: release.to_string(),
                ..facts()
            };
            assert_eq!(facts.too_old(), old, "{release}");
            assert_eq!(eperm(&facts, Origin::Lsm).reason.contains("Linux"), old);
        }
    }

    #[test]
    fn an_lsm_list_without_bpf_ends_it() {
        let with = |lsms: &[&str]| Facts {
            lsms: Some(lsms.iter().map(ToString::to_string).collect()),
            ..facts()
        };
        assert_eq!(with(&["lockdown", "bpf"]).no_bpf_lsm(), None);
        assert_eq!(facts().no_bpf_lsm(), None);
        let tried = with(&["lockdown", "yama"])
            .no_bpf_lsm()
            .expect("no bpf in it");
        assert_eq!(
            tried.reason,
            "bpf is not among the active LSMs (lockdown,yama)"
        );
    }
}

//! What this process may do: its own capabilities, or those of a user namespace that it makes for itself.

use std::fs;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};

use crate::LinkError;

/// Numbers of CAP_NET_ADMIN and CAP_SYS_ADMIN (`linux/capability.h`).
const NEEDED: [u32; 2] = [12, 21];

/// Whence the rights come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// The process had them.
    Own,
    /// It has made a user namespace, in which it and its children are root.
    UserNamespace,
}

impl Rights {
    /// Makes sure that this process may make namespaces. Must be called before any thread is started: a process with threads
    /// gets no user namespace (unshare(2)).
    ///
    /// # Errors
    /// It may not, and gets no user namespace either.
    pub fn acquire() -> Result<Self, LinkError> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if has_all(&status) {
            return Ok(Self::Own);
        }
        let (user, group) = (getuid(), getgid());
        let refused = |what: &str, why: String| LinkError::Rights {
            missing: format!("this process has not got both, and {what}: {why}"),
        };
        unshare(CloneFlags::CLONE_NEWUSER)
            .map_err(|error| refused("gets no user namespace of its own", error.to_string()))?;
        for (file, line) in [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("0 {user} 1")),
            ("gid_map", format!("0 {group} 1")),
        ] {
            fs::write(format!("/proc/self/{file}"), line)
                .map_err(|error| refused("its user namespace gets no users", error.to_string()))?;
        }
        Ok(Self::UserNamespace)
    }
}

/// Whether `CapEff` in this text of `/proc/<pid>/status` holds all that is needed.
fn has_all(status: &str) -> bool {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| NEEDED.iter().all(|bit| mask >> bit & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_capabilities_are_needed() {
        assert!(has_all("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(has_all("CapEff:\t0000000000201000"));
        assert!(!has_all("CapEff:\t0000000000200000"));
        assert!(!has_all("CapEff:\t0000000000001000"));
        assert!(!has_all("CapEff:\tx") && !has_all(""));
    }
}

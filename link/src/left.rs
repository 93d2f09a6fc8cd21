//! Processes that stay behind a link when it is gone. A killed command's own children live on in its namespace, in a network
//! that leads nowhere: whoever makes a link first ends those of dead ones.
//!
//! Each namespace of a link says whose it is by an address of its loopback, which lives as long as the namespace does, and
//! which the kernel shows of every process in it.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::net::Ipv6Addr;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::namespace::Namespace;

/// What the addresses of links begin with (RFC 4193), as `side.rs` has it for the others.
const PREFIX: [u8; 6] = [0xfd, 0x74, 0x6f, 0x6b, 0x65, 0x6e];
/// What is left of an address: the process's number, when it was started (in the system's ticks since it came up), and the
/// namespace of processes that both are of.
const STARTED_BITS: u32 = 38;
const AMONG_BITS: u32 = 20;
const PID_BITS: u32 = 22;

/// A process that was asked to end is killed after so many looks, and given up after as many again.
const LOOKS: u32 = 100;
const BETWEEN: Duration = Duration::from_millis(5);

/// Ends every process that is still behind a link whose owner is gone, as `kill -9` leaves them; how many there were. Those
/// that this process may not see or signal stay.
pub fn end_left() -> usize {
    let Some(own) = Owner::current() else {
        return 0;
    };
    let is_left = |namespace: &mut Known, pid| {
        let owner = namespace.owner_of(pid)?;
        // Another container's numbers mean nothing here.
        (owner.among == own.among && !owner.lives()).then_some(())
    };
    end(&is_left)
}

/// Ends every process in `namespace` but this one; how many there were.
pub fn end_all_in(namespace: &Namespace) -> usize {
    let Some(wanted) = namespace.identity() else {
        return 0;
    };
    let own = std::process::id();
    let is_in = |_: &mut Known, pid| {
        let is_other = u32::try_from(pid).is_ok_and(|pid| pid != own);
        (is_other && identity_of(pid)? == wanted).then_some(())
    };
    end(&is_in)
}

/// Asks all that `is_meant` to end, and kills those that do not.
fn end(is_meant: &dyn Fn(&mut Known, i32) -> Option<()>) -> usize {
    let mut ended = BTreeSet::new();
    for look in 0..2 * LOOKS {
        let mut known = Known::default();
        let meant: Vec<i32> = processes()
            .filter(|pid| is_meant(&mut known, *pid).is_some())
            .collect();
        if meant.is_empty() {
            break;
        }
        for pid in meant {
            let signal = match look < LOOKS {
                true if ended.contains(&pid) => continue,
                true => Signal::SIGTERM,
                false => Signal::SIGKILL,
            };
            if kill(Pid::from_raw(pid), signal).is_ok() {
                ended.insert(pid);
            }
        }
        if ended.is_empty() {
            break;
        }
        thread::sleep(BETWEEN);
    }
    ended.len()
}

/// The numbers of all processes that can be seen.
fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
}

/// What the network namespace of a process is known by; `None`: it is gone, or not ours to look at.
fn identity_of(pid: i32) -> Option<(u64, u64)> {
    let file = fs::metadata(format!("/proc/{pid}/ns/net")).ok()?;
    Some((file.dev(), file.ino()))
}

/// Namespaces that were looked at, and whose they are.
#[derive(Default)]
struct Known(HashMap<(u64, u64), Option<Owner>>);

impl Known {
    fn owner_of(&mut self, pid: i32) -> Option<Owner> {
        let look = || {
            let text = fs::read_to_string(format!("/proc/{pid}/net/if_inet6")).ok()?;
            owner_in(&text)
        };
        *self.0.entry(identity_of(pid)?).or_insert_with(look)
    }
}

/// Whose a namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pid: u64,
    started: u64,
    among: u64,
}

impl Owner {
    /// This process; `None` where the system does not tell of it.
    pub(crate) fn current() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let among = fs::metadata("/proc/self/ns/pid").ok()?.ino();
        Some(Self {
            pid: std::process::id().into(),
            started: low(started_in(&stat)?, STARTED_BITS),
            among: low(among, AMONG_BITS),
        })
    }

    /// The address by which a namespace says that it is this process's.
    pub(crate) fn address(self) -> Ipv6Addr {
        let rest = u128::from(low(self.pid, PID_BITS)) << (STARTED_BITS + AMONG_BITS)
            | u128::from(self.started) << AMONG_BITS
            | u128::from(self.among);
        let prefix = PREFIX
            .iter()
            .fold(0, |bits, byte| bits << 8 | u128::from(*byte));
        Ipv6Addr::from(prefix << 80 | rest)
    }

    /// What an address says; `None`: it is another.
    fn of(address: Ipv6Addr) -> Option<Self> {
        if !address.octets().starts_with(&PREFIX) {
            return None;
        }
        let bits = address.to_bits() as u64;
        let owner = Self {
            pid: low(
                (address.to_bits() >> (STARTED_BITS + AMONG_BITS)) as u64,
                PID_BITS,
            ),
            started: low(bits >> AMONG_BITS, STARTED_BITS),
            among: low(bits, AMONG_BITS),
        };
        // The sides' own addresses have nothing there.
        (owner.pid > 0).then_some(owner)
    }

    fn lives(self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid));
        let started = stat.ok().and_then(|stat| started_in(&stat));
        started.is_some_and(|started| low(started, STARTED_BITS) == self.started)
    }
}

fn low(bits: u64, count: u32) -> u64 {
    bits & ((1 << count) - 1)
}

/// When a process was started, of this text of `/proc/<pid>/stat`; `None`: it has ended and is not waited for yet.
fn started_in(stat: &str) -> Option<u64> {
    // The name, in parentheses, may have anything in it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let has_ended = matches!(fields.next()?, "Z" | "X");
    // The 22nd of all; what is left begins with the fourth.
    let started = fields.nth(18)?.parse().ok()?;
    (!has_ended).then_some(started)
}

/// Whose a namespace is, of this text of `/proc/<pid>/net/if_inet6`.
fn owner_in(text: &str) -> Option<Owner> {
    text.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let address = u128::from_str_radix(fields.next()?, 16).ok()?;
        (fields.last()? == "lo").then_some(())?;
        Owner::of(Ipv6Addr::from(address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_says_whose_it_is() {
        let own = Owner::current().unwrap();
        assert!(own.lives() && own.pid == u64::from(std::process::id()));
        let address = own.address();
        assert_eq!(Owner::of(address), Some(own));
        let bits = address.to_bits();
        let text = format!(
            "00000000000000000000000000000001 01 80 10 80       lo\n{bits:032x} 01 80 00 82       lo\n"
        );
        assert_eq!(owner_in(&text), Some(own));
        assert_eq!(owner_in(&text.replace("82       lo", "82     eth0")), None);
        assert_eq!(owner_in("nonsense\n\nx lo\n"), None);
        for other in ["fd74:6f6b:656e::1", "fd74:6f6b:656e::2", "::1", "fe80::1"] {
            assert_eq!(Owner::of(other.parse().unwrap()), None, "{other}");
        }
        let earlier = Owner {
            started: own.started.wrapping_sub(1),
            ..own
        };
        assert!(!earlier.lives(), "its number was given to another since");
    }

    #[test]
    fn the_greatest_figures_fit_into_an_address() {
        let most = Owner {
            pid: low(u64::MAX, PID_BITS),
            started: low(u64::MAX, STARTED_BITS),
            among: low(u64::MAX, AMONG_BITS),
        };
        assert_eq!(Owner::of(most.address()), Some(most));
        assert!(!most.lives());
    }

    #[test]
    fn a_process_that_has_ended_lives_no_more() {
        let stat = |state: &str| {
            format!("7 (a) b (c) {state} 1 7 7 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 4711 99 1")
        };
        assert_eq!(started_in(&stat("S")), Some(4_711));
        assert_eq!(started_in(&stat("Z")), None);
        for broken in ["", "7 (x)", "7 (x) S 1 2", "7 x S 1 7 7 0 -1"] {
            assert_eq!(started_in(broken), None, "{broken}");
        }
    }
}

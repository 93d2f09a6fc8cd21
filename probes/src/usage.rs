//! What a process used up to now, by its own account: what `/usage` of the proxy's admin endpoint says.

use serde::{Deserialize, Serialize};

use crate::sockets::SocketCounts;

/// Totals since the process began, over all of its threads, those that ended among them. Whoever wants what a stretch of time
/// cost asks before and after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessUsage {
    /// CPU time in user mode, in nanoseconds: `getrusage`, which has microseconds.
    pub user_ns: u64,
    /// CPU time in the kernel, in nanoseconds.
    pub system_ns: u64,
    /// Allocations. `None` where counting them was not built in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocations: Option<u64>,
}

/// What a proxy used up to now: its process, and its sockets on either side. What a version does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxyUsage {
    /// The process.
    #[serde(flatten)]
    pub process: ProcessUsage,
    /// Its sockets to clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub door: Option<SocketCounts>,
    /// Its sockets to upstreams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<SocketCounts>,
}

impl ProxyUsage {
    /// What was used since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let since = |now: &Option<SocketCounts>, then: &Option<SocketCounts>| {
            Some(now.as_ref()?.since(then.as_ref()?))
        };
        Self {
            process: self.process.since(&earlier.process),
            door: since(&self.door, &earlier.door),
            upstream: since(&self.upstream, &earlier.upstream),
        }
    }

    /// The same of two processes together; their sockets are known where they are of both.
    pub fn and(&self, other: &Self) -> Self {
        let and = |ours: &Option<SocketCounts>, theirs: &Option<SocketCounts>| {
            let mut sum = ours.clone()?;
            sum.add(theirs.as_ref()?);
            Some(sum)
        };
        Self {
            process: self.process.and(&other.process),
            door: and(&self.door, &other.door),
            upstream: and(&self.upstream, &other.upstream),
        }
    }
}

impl ProcessUsage {
    /// What was used since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let allocations = self.allocations.zip(earlier.allocations);
        Self {
            user_ns: self.user_ns.saturating_sub(earlier.user_ns),
            system_ns: self.system_ns.saturating_sub(earlier.system_ns),
            allocations: allocations.map(|(now, then)| now.saturating_sub(then)),
        }
    }

    /// The same of two processes together; allocations are known where they are of both.
    pub fn and(&self, other: &Self) -> Self {
        let allocations = self.allocations.zip(other.allocations);
        Self {
            user_ns: self.user_ns.saturating_add(other.user_ns),
            system_ns: self.system_ns.saturating_add(other.system_ns),
            allocations: allocations.map(|(ours, theirs)| ours.saturating_add(theirs)),
        }
    }

    /// Shares out `cpu_ns`, which the scheduler counted to the nanosecond, as user and system time were: the kernel tells those
    /// two apart by what its ticks found over the whole life of the process. `None` where both are zero.
    pub fn share(&self, cpu_ns: u64) -> Option<(u64, u64)> {
        let whole = self.user_ns.saturating_add(self.system_ns);
        let user = u128::from(cpu_ns) * u128::from(self.user_ns);
        let user = u64::try_from(user.checked_div(u128::from(whole))?).unwrap_or(cpu_ns);
        let user = user.min(cpu_ns);
        Some((user, cpu_ns - user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_shared_out_and_nothing_is_lost() {
        let usage = ProcessUsage {
            user_ns: 1_000,
            system_ns: 3_000,
            allocations: None,
        };
        assert_eq!(usage.share(4_100), Some((1_025, 3_075)));
        assert_eq!(usage.share(7), Some((1, 6)));
        assert_eq!(ProcessUsage::default().share(7), None);
        let extreme = ProcessUsage {
            user_ns: u64::MAX,
            system_ns: u64::MAX,
            allocations: None,
        };
        let (user, system) = extreme.share(u64::MAX).unwrap();
        assert_eq!(user.checked_add(system), Some(u64::MAX));
    }

    #[test]
    fn sockets_of_several_proxies_are_known_together_where_they_are_of_each() {
        let with = |reads| ProxyUsage {
            door: Some(SocketCounts {
                reads,
                ..SocketCounts::default()
            }),
            ..ProxyUsage::default()
        };
        let both = with(3).and(&with(4));
        assert_eq!(both.door, with(7).door);
        assert_eq!(both.since(&with(5)).door, with(2).door);
        assert_eq!(with(3).and(&ProxyUsage::default()).door, None);
        let json = serde_json::to_string(&both).unwrap();
        assert_eq!(serde_json::from_str::<ProxyUsage>(&json).unwrap(), both);
    }

    #[test]
    fn what_one_of_two_does_not_count_is_not_known_of_both() {
        let counts = ProcessUsage {
            user_ns: 5,
            system_ns: 2,
            allocations: Some(9),
        };
        let does_not = ProcessUsage {
            allocations: None,
            ..counts
        };
        assert_eq!(counts.and(&counts).allocations, Some(18));
        assert_eq!(counts.and(&does_not).allocations, None);
        assert_eq!(counts.since(&does_not).allocations, None);
        assert_eq!(does_not.and(&does_not).user_ns, 10);
        let json = serde_json::to_string(&does_not).unwrap();
        assert_eq!(json, r#"{"user_ns":5,"system_ns":2}"#);
        let told: ProxyUsage = serde_json::from_str(&json).unwrap();
        assert_eq!((told.process, &told.door), (does_not, &None));
        let newer = r#"{"user_ns":5,"system_ns":2,"what_a_later_version_adds":1}"#;
        assert_eq!(
            serde_json::from_str::<ProcessUsage>(newer).unwrap(),
            does_not
        );
    }
}

//! What an emulated link did in a run, so that the figures can be judged by what lay under them.

use serde::{Deserialize, Serialize};

/// What an emulated link did, from when the load generator went behind it to the run's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkActivity {
    /// How long that was, in nanoseconds.
    pub span_ns: u64,
    /// From the client to the server.
    pub up: WayActivity,
    /// From the server to the client.
    pub down: WayActivity,
    /// Packets that had to wait for a moment: those that can be released late.
    pub held: u64,
    /// How much later than they were due they were written, in nanoseconds, at the median; `None` without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_error_p50_ns: Option<u64>,
    /// The same at the 99th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_error_p99_ns: Option<u64>,
    /// Packets that the devices dropped before the emulator could read them; `None` where the system does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unread: Option<u64>,
    /// CPU time of the relay, in nanoseconds; `None` where the system does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay_cpu_ns: Option<u64>,
    /// What of it was work, not waiting on the processor for a packet's moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay_work_ns: Option<u64>,
    /// The share of the busiest 100 ms in which the relay neither slept nor waited for a moment.
    pub relay_busiest_share: f64,
}

/// One direction's packets, with IP headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WayActivity {
    /// Packets that came in.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Came out at the other side.
    pub delivered: u64,
    /// Lost by the link's loss.
    pub lost: u64,
    /// Dropped by the link's queue.
    pub dropped: u64,
    /// Dropped by the emulator, where the link would have carried them.
    pub overflow: u64,
    /// Delivered after one that had come in later.
    pub reordered: u64,
}

impl LinkActivity {
    /// The share of a core that the relay's work took over the whole time; `None` where the system does not tell.
    pub fn relay_share(&self) -> Option<f64> {
        let work = self.relay_work_ns?;
        (self.span_ns > 0).then(|| work as f64 / self.span_ns as f64)
    }

    /// Packets that the emulator dropped where the link would have carried them.
    pub fn missed(&self) -> u64 {
        self.up.overflow + self.down.overflow + self.unread.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_absent_and_shares_are_of_the_whole_time() {
        let nothing = LinkActivity::default();
        let json = serde_json::to_value(nothing).unwrap();
        assert!(json.get("relay_cpu_ns").is_none() && json.get("unread").is_none());
        assert_eq!((nothing.relay_share(), nothing.missed()), (None, 0));
        let some = LinkActivity {
            span_ns: 2_000,
            relay_work_ns: Some(500),
            unread: Some(3),
            up: WayActivity {
                overflow: 4,
                ..WayActivity::default()
            },
            ..nothing
        };
        assert_eq!((some.relay_share(), some.missed()), (Some(0.25), 7));
        let json = serde_json::to_string(&some).unwrap();
        assert_eq!(serde_json::from_str::<LinkActivity>(&json).unwrap(), some);
    }
}

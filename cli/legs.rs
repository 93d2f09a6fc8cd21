//! What goes between the two proxies of a pair, as the one beside the load generator counts it: read before and after each
//! turn of the row, never while it lasts.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::Context;
use tokenlag_loadgen::BaseUrl;
use tokenlag_probes::{Counters, HopExchange, Row, TraceId};

use crate::admin::Admin;
use crate::http;
use crate::rig::Sidecar;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The proxies of a run that stand beside the load generator.
pub struct Legs(Vec<Leg>);

/// What is known of the way between the two proxies of a pair, and of the first of them.
pub struct Between {
    /// What went between them.
    pub counters: Counters,
    /// How long each delta was in the sidecar beside the load generator, in nanoseconds, exchange by exchange.
    pub sidecar: HashMap<TraceId, Vec<u32>>,
}

/// How long each delta was in the proxy that recorded `hops`. Of replies that were read from their first byte on alone.
fn residences(hops: &[HopExchange]) -> HashMap<TraceId, Vec<u32>> {
    let of = |hop: &HopExchange| {
        let stamps = hop.up_token.iter().zip(&hop.out_token);
        let spans = stamps.map(|(up, out)| u32::try_from(out.since(*up).max(0)));
        spans.map(|span| span.unwrap_or(u32::MAX)).collect()
    };
    hops.iter()
        .filter_map(|hop| Some((hop.trace?, of(hop))))
        .collect()
}

/// One of them, and what it had counted when the row's turn began.
struct Leg {
    sidecar: Sidecar,
    /// Tells when an exchange is over there too.
    stamps: Admin,
    before: Counters,
}

impl Legs {
    /// Those of `sidecars`.
    pub fn of(sidecars: &[Sidecar]) -> Self {
        let leg = |sidecar: &Sidecar| Leg {
            stamps: Admin::new(sidecar.admin.clone()),
            sidecar: sidecar.clone(),
            before: Counters::default(),
        };
        Self(sidecars.iter().map(leg).collect())
    }

    fn leg(&mut self, row: Row) -> Option<&mut Leg> {
        self.0.iter_mut().find(|leg| leg.sidecar.is_for(row))
    }

    /// The row's turn begins.
    ///
    /// # Errors
    /// Its sidecar cannot be asked.
    pub async fn begin(&mut self, row: Row) -> anyhow::Result<()> {
        if let Some(leg) = self.leg(row) {
            leg.stamps.skip().await?;
            leg.before = counted(&leg.sidecar).await?;
        }
        Ok(())
    }

    /// The row's turn is over, and `exchanges` were completed in it: what went between its sidecars meanwhile, and the stamps of
    /// the one beside the load generator. `None` where the row is no pair.
    ///
    /// # Errors
    /// Its sidecar cannot be asked.
    pub async fn end(
        &mut self,
        row: Row,
        exchanges: HashSet<TraceId>,
    ) -> anyhow::Result<Option<Between>> {
        let Some(leg) = self.leg(row) else {
            return Ok(None);
        };
        // The client has its reply a moment before the sidecar lays the connection by that brought it.
        let fetched = leg.stamps.fetch(exchanges).await?;
        let after = counted(&leg.sidecar).await?;
        Ok(Some(Between {
            counters: after.since(&leg.before),
            sidecar: residences(&fetched.hops),
        }))
    }
}

/// What a sidecar has counted on its way to the other one.
async fn counted(sidecar: &Sidecar) -> anyhow::Result<Counters> {
    let base: &BaseUrl = &sidecar.admin;
    let body = http::get(base, None, "/metrics", &[], PATIENCE)
        .await
        .context("cannot ask a pair's sidecar what it carried")?;
    let channel = sidecar.transport.leg().unwrap_or(sidecar.transport);
    parse(
        &String::from_utf8_lossy(&body),
        &channel.to_string(),
        sidecar.encrypted,
    )
    .with_context(|| {
        format!(
            "the metrics of the sidecar at {} do not say what it carried over {channel}",
            base.authority()
        )
    })
}

/// Reads the proxy's figures of one channel to its upstream; `None` where one of them is not there.
fn parse(metrics: &str, channel: &str, encrypted: bool) -> Option<Counters> {
    let count = |name: &str| -> Option<u64> {
        let series = format!("tokenlag_upstream_{name}_total{{channel=\"{channel}\"}} ");
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(&series))?;
        value.trim().parse().ok()
    };
    let if_encrypted = |name: &str| encrypted.then(|| count(name)).flatten();
    Some(Counters {
        wire_bytes_sent: Some(count("wire_bytes_sent")?),
        wire_bytes_received: Some(count("wire_bytes_received")?),
        channel_bytes_sent: Some(count("channel_bytes_sent")?),
        channel_bytes_received: Some(count("channel_bytes_received")?),
        reads: Some(count("reads")?),
        writes: Some(count("writes")?),
        connections_opened: Some(count("connections_opened")?),
        handshakes_made: if_encrypted("handshakes_made"),
        handshakes_resumed: if_encrypted("handshakes_resumed"),
        early_data_accepted: if_encrypted("early_data_accepted"),
        ..Counters::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_channel_is_read_and_no_other() {
        let mut metrics = String::from("# TYPE tokenlag_upstream_reads_total counter\n");
        for (at, name) in [
            "wire_bytes_sent",
            "wire_bytes_received",
            "channel_bytes_sent",
            "channel_bytes_received",
            "reads",
            "writes",
            "connections_opened",
            "handshakes_made",
            "handshakes_resumed",
            "early_data_accepted",
        ]
        .into_iter()
        .enumerate()
        {
            for (channel, value) in [("http", 1_000), ("ws", at)] {
                let line =
                    format!("tokenlag_upstream_{name}_total{{channel=\"{channel}\"}} {value}\n");
                metrics.push_str(&line);
            }
        }
        let ws = parse(&metrics, "ws", false).unwrap();
        assert_eq!(
            (ws.wire_bytes_sent, ws.channel_bytes_received),
            (Some(0), Some(3))
        );
        assert_eq!((ws.connections_opened, ws.handshakes_made), (Some(6), None));
        let encrypted = parse(&metrics, "ws", true).unwrap();
        assert_eq!(encrypted.handshakes_resumed, Some(8));
        assert_eq!(encrypted.since(&ws).wire_bytes_received, Some(0));
        assert_eq!(parse(&metrics, "quic", true), None);
    }
}

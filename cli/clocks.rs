//! The proxy's clock next to ours: round trips to its `/clock` around each cell, and its stamps moved onto our clock.

use std::time::Duration;

use anyhow::{Context, bail};
use tokenlag_channel::http::Connection;
use tokenlag_channel::http::render::start_request;
use tokenlag_channel::{Dial, Stamping};
use tokenlag_loadgen::BaseUrl;
use tokenlag_probes::clock::clock_name;
use tokenlag_probes::{
    Clock, ClockBatch, ClockRecord, ClockReply, Joined, MonoClock, RoundTrip, Stamp,
};

use crate::link::from_home;

/// Round trips of a batch.
const ROUND_TRIPS: usize = 16;
/// Round trips of one whose fastest is slow: it goes on until here, for one that is not.
const MOST_ROUND_TRIPS: usize = 64;
/// A batch on a long way ends here, with [`FEWEST_ROUND_TRIPS`] if that is all there was time for.
const LONG: Duration = Duration::from_millis(100);
const FEWEST_ROUND_TRIPS: usize = 2;
/// Slow is what takes longer than the fastest of the run by more than such a part of it.
const SLOW_PART: i64 = 4;
/// A batch is good for the next cell too if that begins so soon.
const FRESH: Duration = Duration::from_secs(1);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most that an answer may hold.
const BODY_LIMIT: usize = 4_096;

/// The two clocks of a run, as it goes on.
pub struct Clocks {
    asker: Asker,
    record: ClockRecord,
    /// Batches that the run's manifest has.
    told: usize,
}

impl Clocks {
    /// Finds out whether the proxy whose admin endpoint is at `base` has our clock, for a run that began at `started`.
    ///
    /// # Errors
    /// It does not tell its time, or tells one that cannot be.
    pub async fn compare(base: &BaseUrl, started: Stamp) -> anyhow::Result<Self> {
        let mut asker = Asker::new(base);
        let batch = asker.batch(i64::MAX).await?;
        Ok(Self {
            record: ClockRecord {
                ours: clock_name(),
                theirs: asker.clock.clone(),
                started,
                batches: vec![batch],
            },
            asker,
            told: 1,
        })
    }

    /// What is known so far.
    pub fn record(&self) -> &ClockRecord {
        &self.record
    }

    /// A cell begins: unless the clock is one, there are round trips shortly before it.
    ///
    /// # Errors
    /// As for [`compare`](Self::compare).
    pub async fn cell_starts(&mut self) -> anyhow::Result<()> {
        let last = self.record.batches.last().map(ClockBatch::moment);
        match last.is_some_and(|last| MonoClock.now() < last + FRESH) {
            true => Ok(()),
            false => self.cell_ended().await,
        }
    }

    /// A cell is over: unless the clock is one, there are round trips shortly after it.
    ///
    /// # Errors
    /// As for [`compare`](Self::compare).
    pub async fn cell_ended(&mut self) -> anyhow::Result<()> {
        if self.record.is_estimated() {
            let delays = self.record.batches.iter().map(|it| it.fastest.delay_ns());
            let fastest = delays.min().unwrap_or(i64::MAX);
            let batch = self.asker.batch(fastest).await?;
            self.record.batches.push(batch);
        }
        Ok(())
    }

    /// Moves the proxy's stamps of a cell onto our clock, where it has another.
    pub fn move_onto_ours(&self, joined: &mut Joined, started: Stamp, ended: Stamp) {
        if !self.record.is_estimated() {
            return;
        }
        let Some(span) = self.record.span(started, ended) else {
            return;
        };
        let hops = joined.exchanges.iter_mut();
        for hop in hops.filter_map(|joined| joined.hop.as_mut()) {
            span.move_onto_ours(hop);
        }
    }

    /// The batches since the last call, for the manifest.
    pub fn news(&mut self) -> Vec<ClockBatch> {
        let news = self.record.batches[self.told..].to_vec();
        self.told = self.record.batches.len();
        news
    }
}

/// Asks for the time, over a connection that is kept.
struct Asker {
    dial: Dial,
    request: Vec<u8>,
    url: String,
    connection: Option<Connection>,
    /// The name of the other clock, once it was told.
    clock: Option<String>,
}

impl Asker {
    fn new(base: &BaseUrl) -> Self {
        let mut request = Vec::with_capacity(128);
        start_request(&mut request, "GET", "/clock", &base.authority());
        request.extend_from_slice(b"\r\n");
        Self {
            dial: Dial {
                host: base.host().to_owned(),
                port: base.port(),
                path: "/clock".to_owned(),
                headers: Vec::new(),
                connect_timeout: PATIENCE,
                idle_timeout: PATIENCE,
                tls: None,
                stamping: Stamping::default(),
                nagle: false,
            },
            request,
            url: format!("http://{}/clock", base.authority()),
            connection: None,
            clock: None,
        }
    }

    /// The fastest of some round trips: more of them where all take longer than `fastest`, and a little, the best so far.
    async fn batch(&mut self, fastest: i64) -> anyhow::Result<ClockBatch> {
        let mut made: Vec<RoundTrip> = Vec::with_capacity(ROUND_TRIPS);
        let slow = fastest.saturating_add(fastest / SLOW_PART);
        let end = MonoClock.now() + LONG;
        loop {
            made.push(self.round_trip().await?);
            let is_fast = |trip: &RoundTrip| trip.is_possible() && trip.delay_ns() <= slow;
            let wanted = match made.iter().any(is_fast) {
                true => ROUND_TRIPS,
                false => MOST_ROUND_TRIPS,
            };
            let is_late = MonoClock.now() > end;
            if made.len() >= wanted || (is_late && made.len() >= FEWEST_ROUND_TRIPS) {
                break;
            }
        }
        ClockBatch::of(made).with_context(|| {
            format!(
                "GET {}: it says in each of its answers that it had the request for longer than the answer took; is its clock broken?",
                self.url
            )
        })
    }

    /// One round trip; on a new connection where the one that was kept is gone.
    async fn round_trip(&mut self) -> anyhow::Result<RoundTrip> {
        if let Some(mut kept) = self.connection.take()
            && kept.is_fresh()
            && let Ok(trip) = self.over(&mut kept).await
        {
            self.connection = Some(kept);
            return Ok(trip);
        }
        self.on_a_new_connection().await.with_context(|| {
            format!(
                "GET {}: cannot learn the time of the proxy's clock",
                self.url
            )
        })
    }

    async fn on_a_new_connection(&mut self) -> anyhow::Result<RoundTrip> {
        let mut made = from_home(Connection::dial(&self.dial)).await??.connection;
        let trip = self.over(&mut made).await?;
        self.connection = Some(made);
        Ok(trip)
    }

    async fn over(&mut self, connection: &mut Connection) -> anyhow::Result<RoundTrip> {
        let sent = connection.send(&self.request).await?;
        let mut response = connection.response("GET", PATIENCE).await?;
        let mut body = Vec::with_capacity(192);
        while let Some(chunk) = connection.chunk(&mut response.body, PATIENCE).await? {
            body.extend_from_slice(&chunk.bytes);
            if body.len() > BODY_LIMIT {
                bail!("its answer is longer than {BODY_LIMIT} bytes");
            }
        }
        match response.head.status {
            200 => {}
            404 => {
                bail!("it has no /clock: is it of another version, or no proxy's admin endpoint?")
            }
            status => bail!("its answer has status {status}"),
        }
        if !response.body.is_reusable() {
            bail!("it closes the connection after each answer, so that none is fast");
        }
        let reply = ClockReply::parse(&body)?;
        self.clock = reply.clock;
        Ok(RoundTrip {
            sent,
            received: reply.received,
            replied: reply.replied,
            arrived: response.head_at,
        })
    }
}

#[cfg(test)]
#[path = "clocks_tests.rs"]
mod tests;

//! Fetching the proxy's stamps, by cursor and between cells.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use tokenlag_loadgen::BaseUrl;
use tokenlag_probes::{Clock, HopExchange, MonoClock, TraceId};

use crate::http;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The proxy books an exchange after its last byte was written: its record may come a moment after the client's end.
const LATE: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(4);

/// The proxy's admin endpoint, and how far it was read.
#[derive(Debug)]
pub struct Admin {
    base: BaseUrl,
    next: u64,
}

/// Records that the proxy handed over.
#[derive(Debug, Default)]
pub struct Fetched {
    /// The records.
    pub hops: Vec<HopExchange>,
    /// Records that were gone before they could be fetched.
    pub evicted: u64,
}

#[derive(Debug, Deserialize)]
struct Cursor {
    next: u64,
    #[serde(default)]
    evicted: u64,
}

impl Admin {
    /// The admin endpoint at `base`, unread.
    pub fn new(base: BaseUrl) -> Self {
        Self { base, next: 0 }
    }

    /// Where it is.
    pub fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// Passes over what is there already: warm-ups, other clients, earlier runs.
    pub async fn skip(&mut self) -> anyhow::Result<()> {
        while !self.page(&mut Fetched::default()).await? {}
        Ok(())
    }

    /// The new records: at least those of `wanted`, unless they do not come within half a second.
    pub async fn fetch(&mut self, mut wanted: HashSet<TraceId>) -> anyhow::Result<Fetched> {
        let mut fetched = Fetched::default();
        let deadline = MonoClock.now() + LATE;
        loop {
            let seen = fetched.hops.len();
            let all_read = self.page(&mut fetched).await?;
            for hop in &fetched.hops[seen..] {
                if let Some(trace) = &hop.trace {
                    wanted.remove(trace);
                }
            }
            if wanted.is_empty() || (all_read && MonoClock.now() > deadline) {
                return Ok(fetched);
            }
            if all_read {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Reads one answer; `true` when there is no more for now.
    async fn page(&mut self, fetched: &mut Fetched) -> anyhow::Result<bool> {
        let path = format!("/exchanges?since={}", self.next);
        let body = http::get(&self.base, None, &path, &[], PATIENCE)
            .await
            .context("cannot fetch the proxy's stamps; is --proxy-admin its admin endpoint?")?;
        let mut lines = body
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty());
        let Some(last) = lines.next_back() else {
            bail!("the proxy's admin endpoint sent an empty answer");
        };
        let cursor: Cursor = serde_json::from_slice(last)
            .context("the proxy's stamps do not end with a cursor; is it of another version?")?;
        let before = fetched.hops.len();
        for line in lines {
            let hop = serde_json::from_slice(line)
                .context("the proxy's stamps cannot be read; is it of another version?")?;
            fetched.hops.push(hop);
        }
        fetched.evicted += cursor.evicted;
        // A proxy that was started anew counts from the beginning again.
        self.next = cursor.next;
        Ok(fetched.hops.len() == before)
    }
}

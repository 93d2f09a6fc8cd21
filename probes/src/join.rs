//! Joining the two ends of an exchange by trace id: a pure function over what the client and the proxy recorded.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::exchange::{Exchange, HopExchange, Outcome, TraceId};

/// An exchange with the proxy's record of it, where there is one that fits.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinedExchange {
    /// As the load generator saw it.
    pub exchange: Exchange,
    /// As the proxy saw it.
    pub hop: Option<HopExchange>,
}

/// The same, borrowed, or an exchange of which there is no other record.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// As the load generator saw it.
    pub exchange: &'a Exchange,
    /// As the proxy saw it.
    pub hop: Option<&'a HopExchange>,
}

impl<'a> From<&'a JoinedExchange> for Seen<'a> {
    fn from(joined: &'a JoinedExchange) -> Self {
        Self {
            exchange: &joined.exchange,
            hop: joined.hop.as_ref(),
        }
    }
}

impl<'a> From<&'a Exchange> for Seen<'a> {
    fn from(exchange: &'a Exchange) -> Self {
        Self {
            exchange,
            hop: None,
        }
    }
}

/// Why complete exchanges could not be joined, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unjoined {
    /// The proxy has no record with that trace id.
    pub no_hop_record: u64,
    /// The two ends counted different numbers of deltas.
    pub ordinals_differ: u64,
    /// The trace id names more than one exchange, or more than one of the proxy's records.
    pub duplicate_trace: u64,
    /// Records that the proxy dropped before they were fetched: a cause of `no_hop_record`, so no part of the total.
    pub evicted: u64,
}

impl Unjoined {
    /// Complete exchanges without a partner.
    pub fn total(&self) -> u64 {
        let others = self.ordinals_differ.saturating_add(self.duplicate_trace);
        self.no_hop_record.saturating_add(others)
    }

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Unjoined) {
        self.no_hop_record = self.no_hop_record.saturating_add(other.no_hop_record);
        self.ordinals_differ = self.ordinals_differ.saturating_add(other.ordinals_differ);
        self.duplicate_trace = self.duplicate_trace.saturating_add(other.duplicate_trace);
        self.evicted = self.evicted.saturating_add(other.evicted);
    }
}

/// What [`join`] gives: every exchange in the order it came, and what did not fit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Joined {
    /// All exchanges, joined or not, in the order given.
    pub exchanges: Vec<JoinedExchange>,
    /// Complete exchanges that found no partner, by reason.
    pub unjoined: Unjoined,
    /// The proxy's records that belong to none of the exchanges: other clients, warm-ups.
    pub foreign: u64,
}

/// Pairs each exchange with the proxy's record of the same trace id.
///
/// A complete exchange is joined only if both ends counted the same deltas; one that is not complete keeps whatever record
/// there is, since it has no figures and its counts cannot agree. `evicted` is what the proxy says it dropped before it was
/// fetched. A row without a proxy (`direct`) has nothing to join: do not call this for it.
pub fn join(exchanges: Vec<Exchange>, hops: Vec<HopExchange>, evicted: u64) -> Joined {
    let mut sent: HashMap<TraceId, u32> = HashMap::with_capacity(exchanges.len());
    for exchange in &exchanges {
        *sent.entry(exchange.trace).or_default() += 1;
    }
    let mut joined = Joined {
        exchanges: Vec::with_capacity(exchanges.len()),
        ..Joined::default()
    };
    joined.unjoined.evicted = evicted;

    let mut seen: HashMap<TraceId, Vec<HopExchange>> = HashMap::with_capacity(hops.len());
    for hop in hops {
        match hop.trace.filter(|trace| sent.contains_key(trace)) {
            Some(trace) => seen.entry(trace).or_default().push(hop),
            None => joined.foreign += 1,
        }
    }

    for exchange in exchanges {
        let mut candidates = seen.remove(&exchange.trace).unwrap_or_default();
        let complete = exchange.outcome == Outcome::Complete;
        let twice = sent[&exchange.trace] > 1 || candidates.len() > 1;
        let hop = if twice { None } else { candidates.pop() };
        let fits = |hop: &HopExchange| !complete || hop.up_token.len() == exchange.tokens.len();
        if complete {
            let unjoined = &mut joined.unjoined;
            match &hop {
                _ if twice => unjoined.duplicate_trace += 1,
                None => unjoined.no_hop_record += 1,
                Some(hop) if !fits(hop) => unjoined.ordinals_differ += 1,
                Some(_) => {}
            }
        }
        joined.exchanges.push(JoinedExchange {
            hop: hop.filter(fits),
            exchange,
        });
    }
    joined
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;

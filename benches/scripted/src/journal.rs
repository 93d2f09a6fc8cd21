//! What the backend saw and did, bounded: requests as they came, and the stamps of what was written.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokenlag_probes::{Stamp, TraceId};

/// Requests that are kept, and bytes of their bodies; the oldest make room.
const KEPT: usize = 16_384;
const KEPT_BODIES: usize = 64 << 20;
/// Stamps that are kept in all, of however many replies: 64 MiB of them. The oldest replies make room; the last one's are kept
/// however many they are.
const KEPT_STAMPS: usize = 8 << 20;
/// What a reply takes beside its stamps, as so many of them.
const OF_A_REPLY: usize = 16;
/// Of a body, so many bytes are kept.
const KEPT_BODY: usize = 1 << 20;

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedRequest {
    /// The connection, counted from 0 in the order of acceptance.
    pub connection: u64,
    /// When the read returned that carried its last byte.
    pub at: Stamp,
    /// The method.
    pub method: String,
    /// The path, with its query.
    pub path: String,
    /// Its headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, up to its first MiB.
    pub body: Vec<u8>,
    /// The trace id of its `traceparent`.
    pub trace: Option<TraceId>,
}

impl ReceivedRequest {
    /// The first header of that name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    requests: VecDeque<ReceivedRequest>,
    /// Bytes of their bodies.
    bodies: usize,
    emissions: HashMap<TraceId, Vec<Stamp>>,
    order: VecDeque<TraceId>,
    /// Room that is taken, as stamps.
    taken: usize,
}

impl Journal {
    pub(crate) fn note_request(&self, request: &ReceivedRequest) {
        let mut pages = self.pages();
        let mut kept = request.clone();
        kept.body.truncate(KEPT_BODY);
        pages.bodies += kept.body.len();
        pages.requests.push_back(kept);
        while pages.requests.len() > KEPT || pages.bodies > KEPT_BODIES {
            let gone = pages.requests.pop_front();
            pages.bodies -= gone.map_or(0, |gone| gone.body.len());
        }
    }

    /// Notes when each delta of an exchange was written, in place of what was noted under that id before.
    pub(crate) fn note_emissions(&self, trace: TraceId, stamps: Vec<Stamp>) {
        let mut pages = self.pages();
        pages.taken += room(&stamps);
        match pages.emissions.insert(trace, stamps) {
            Some(before) => pages.taken -= room(&before),
            None => pages.order.push_back(trace),
        }
        while pages.taken > KEPT_STAMPS && pages.order.len() > 1 {
            let Some(oldest) = pages.order.pop_front() else {
                break;
            };
            let gone = pages.emissions.remove(&oldest);
            pages.taken -= gone.map_or(0, |gone| room(&gone));
        }
    }

    /// All that is kept, which is forgotten with it.
    pub(crate) fn take_emissions(&self) -> HashMap<TraceId, Vec<Stamp>> {
        let mut pages = self.pages();
        pages.order.clear();
        pages.taken = 0;
        std::mem::take(&mut pages.emissions)
    }

    pub(crate) fn emissions(&self, trace: TraceId) -> Option<Vec<Stamp>> {
        self.pages().emissions.get(&trace).cloned()
    }

    pub(crate) fn requests(&self) -> Vec<ReceivedRequest> {
        self.pages().requests.iter().cloned().collect()
    }

    pub(crate) fn take_requests(&self) -> Vec<ReceivedRequest> {
        let mut pages = self.pages();
        pages.bodies = 0;
        std::mem::take(&mut pages.requests).into()
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        // A connection that panicked left whole pages behind: each change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a reply takes, as stamps.
fn room(stamps: &[Stamp]) -> usize {
    stamps.len() + OF_A_REPLY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_stamps_make_room() {
        let journal = Journal::default();
        let trace = |k: usize| TraceId::from_bits(k as u128 + 1);
        for k in 0..KEPT_STAMPS / (OF_A_REPLY + 1) + 3 {
            journal.note_emissions(trace(k), vec![Stamp::from_nanos(k as u64)]);
        }
        assert_eq!(journal.emissions(trace(2)), None);
        assert_eq!(
            journal.emissions(trace(3)),
            Some(vec![Stamp::from_nanos(3)])
        );
    }

    #[test]
    fn long_bodies_make_each_other_room() {
        let journal = Journal::default();
        let request = |connection| ReceivedRequest {
            connection,
            at: Stamp::default(),
            method: String::new(),
            path: String::new(),
            headers: Vec::new(),
            body: vec![0; 2 * KEPT_BODY],
            trace: None,
        };
        let fit = (KEPT_BODIES / KEPT_BODY) as u64;
        (0..fit + 2).for_each(|number| journal.note_request(&request(number)));
        let kept = journal.take_requests();
        assert_eq!((kept.len() as u64, kept[0].connection), (fit, 2));
        assert_eq!(kept[0].body.len(), KEPT_BODY);
        journal.note_request(&request(0));
        assert_eq!(journal.requests().len(), 1);
    }

    #[test]
    fn long_replies_make_each_other_room() {
        let journal = Journal::default();
        let long = || vec![Stamp::from_nanos(1); KEPT_STAMPS / 2 + 1];
        for trace in [1, 2, 2] {
            journal.note_emissions(TraceId::from_bits(trace), long());
        }
        assert_eq!(journal.emissions(TraceId::from_bits(1)), None);
        let kept = journal.take_emissions();
        assert_eq!(kept[&TraceId::from_bits(2)].len(), KEPT_STAMPS / 2 + 1);
        assert_eq!(journal.emissions(TraceId::from_bits(2)), None);
    }
}

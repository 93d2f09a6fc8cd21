//! What our streams know of an exchange that h3 does not tell: when its bytes came, and whether the peer gave it up.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use h3::error::Code;
use quinn::VarInt;
use tokenlag_probes::Stamp;

/// A future that h3 could move to another thread.
type Boxed = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// One exchange's stream.
#[derive(Default)]
pub(crate) struct Track {
    arrivals: Mutex<Arrivals>,
    /// Bytes that the endpoint took.
    pub(crate) sent: AtomicU64,
    /// When we opened the stream.
    pub(crate) opened: Stamp,
    /// The stream was opened by early data.
    pub(crate) early: bool,
    /// The code with which the stream is reset as it is dropped; 0: it is finished.
    verdict: AtomicU64,
    given_up: Mutex<GivenUp>,
}

/// Whether the peer gave an exchange up.
#[derive(Default)]
enum GivenUp {
    /// Nobody asks.
    #[default]
    Unwatched,
    /// Completes when the peer stops the stream or is gone.
    Watched(Boxed),
    Yes,
}

impl std::fmt::Debug for Track {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Track").finish_non_exhaustive()
    }
}

/// When the bytes of a stream came.
#[derive(Debug, Default)]
struct Arrivals {
    first: Option<Arrival>,
    last: Stamp,
    /// Bytes of the body that were read and not given out yet: those read first, and the others. Most bodies are taken as
    /// they are read, and need no memory for others.
    oldest: Option<(usize, Arrival)>,
    newer: VecDeque<(usize, Arrival)>,
}

/// One read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// When the socket last received before it.
    pub(crate) at: Stamp,
    /// The socket's count of receives.
    pub(crate) reads: u64,
}

impl Track {
    pub(crate) fn new(early: bool, given_up: Option<Boxed>) -> Arc<Self> {
        Arc::new(Self {
            early,
            given_up: Mutex::new(given_up.map_or(GivenUp::Unwatched, GivenUp::Watched)),
            ..Self::default()
        })
    }

    /// Of a stream of our own.
    pub(crate) fn opened(at: Stamp) -> Arc<Self> {
        Arc::new(Self {
            opened: at,
            ..Self::default()
        })
    }

    /// Notes a read that brought so many bytes of the body.
    pub(crate) fn came(&self, arrival: Arrival, of_body: usize) {
        let mut arrivals = self.arrivals();
        arrivals.first.get_or_insert(arrival);
        arrivals.last = arrival.at;
        if of_body > 0 {
            match arrivals.oldest {
                None => arrivals.oldest = Some((of_body, arrival)),
                Some(_) => arrivals.newer.push_back((of_body, arrival)),
            }
        }
    }

    /// The read with the stream's first byte.
    pub(crate) fn first(&self) -> Option<Arrival> {
        self.arrivals().first
    }

    /// When the last bytes came.
    pub(crate) fn last(&self) -> Stamp {
        self.arrivals().last
    }

    /// The read that brought the last of the next `bytes` of the body.
    pub(crate) fn take(&self, mut bytes: usize) -> Option<Arrival> {
        let mut arrivals = self.arrivals();
        let mut arrival = None;
        while bytes > 0
            && let Some((left, at)) = &mut arrivals.oldest
        {
            arrival = Some(*at);
            let taken = bytes.min(*left);
            *left -= taken;
            bytes -= taken;
            if *left == 0 {
                arrivals.oldest = arrivals.newer.pop_front();
            }
        }
        arrival
    }

    /// From here on the stream is reset with this code where it is dropped before its end.
    pub(crate) fn condemn(&self, code: Code) {
        self.verdict.store(code.value(), Relaxed);
    }

    /// The code with which the stream is to be reset.
    pub(crate) fn verdict(&self) -> Option<VarInt> {
        match self.verdict.load(Relaxed) {
            0 => None,
            code => VarInt::from_u64(code).ok(),
        }
    }

    /// Returns when the peer stopped the stream or is gone; never where that is not watched.
    pub(crate) async fn given_up(&self) {
        std::future::poll_fn(|context| self.poll_given_up(context)).await;
    }

    fn poll_given_up(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *given_up {
            GivenUp::Unwatched => return Poll::Pending,
            GivenUp::Watched(watch) => ready!(watch.as_mut().poll(context)),
            GivenUp::Yes => {}
        }
        *given_up = GivenUp::Yes;
        Poll::Ready(())
    }

    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        // Each note is whole when the lock is given back.
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tracks of a connection.
#[derive(Debug, Default)]
pub(crate) struct Tracks {
    streams: Mutex<Streams>,
    /// The connection lives on when h3 is done with it.
    outlived: AtomicBool,
    /// The peer broke a rule that h3 does not watch over.
    broken: AtomicBool,
}

#[derive(Debug, Default)]
struct Streams {
    /// The oldest first: a peer numbers them as they begin, so that a new one comes last.
    by_id: VecDeque<(u64, Arc<Track>)>,
    newest: Option<Arc<Track>>,
}

impl Streams {
    /// Where a stream is, or would be.
    fn place(&self, id: u64) -> Result<usize, usize> {
        self.by_id.binary_search_by_key(&id, |&(known, _)| known)
    }
}

impl Tracks {
    pub(crate) fn insert(&self, id: u64, track: &Arc<Track>) {
        let mut streams = self.streams();
        match streams.place(id) {
            Ok(place) => streams.by_id[place].1 = Arc::clone(track),
            Err(place) => streams.by_id.insert(place, (id, Arc::clone(track))),
        }
        streams.newest = Some(Arc::clone(track));
    }

    /// The stream is gone.
    pub(crate) fn remove(&self, id: u64) {
        let mut streams = self.streams();
        if let Ok(place) = streams.place(id) {
            streams.by_id.remove(place);
        }
    }

    pub(crate) fn get(&self, id: u64) -> Arc<Track> {
        let streams = self.streams();
        let found = streams.place(id).ok().map(|place| &streams.by_id[place].1);
        found.cloned().unwrap_or_default()
    }

    /// The stream that was opened or accepted last.
    pub(crate) fn newest(&self) -> Arc<Track> {
        self.streams().newest.take().unwrap_or_default()
    }

    /// Keeps h3 from closing the connection.
    pub(crate) fn outlive(&self) {
        self.outlived.store(true, Relaxed);
    }

    pub(crate) fn is_outlived(&self) -> bool {
        self.outlived.load(Relaxed)
    }

    /// The connection was closed for what the peer had sent.
    pub(crate) fn break_off(&self) {
        self.broken.store(true, Relaxed);
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Relaxed)
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        // Each change is whole when the lock is given back.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(number: u64) -> Arrival {
        Arrival {
            at: Stamp::from_nanos(number),
            reads: number,
        }
    }

    #[test]
    fn a_stream_is_found_by_its_number_until_it_is_gone() {
        let tracks = Tracks::default();
        for id in [8, 0, 4] {
            tracks.insert(id, &Track::opened(Stamp::from_nanos(id)));
        }
        assert_eq!(tracks.newest().opened, Stamp::from_nanos(4));
        tracks.remove(0);
        tracks.remove(12);
        for (id, opened) in [(0, 0), (4, 4), (8, 8)] {
            assert_eq!(tracks.get(id).opened, Stamp::from_nanos(opened));
        }
        assert_eq!(tracks.streams().by_id.len(), 2);
    }

    #[test]
    fn what_is_given_out_has_the_stamp_of_the_read_that_brought_it() {
        let track = Track::default();
        track.came(arrival(1), 0);
        track.came(arrival(2), 10);
        track.came(arrival(3), 5);
        assert_eq!(track.take(4), Some(arrival(2)));
        assert_eq!(track.take(6), Some(arrival(2)));
        track.came(arrival(4), 5);
        assert_eq!(track.take(7), Some(arrival(4)));
        assert_eq!(track.take(3), Some(arrival(4)));
        assert_eq!(track.take(1), None);
        assert_eq!(track.first(), Some(arrival(1)));
        assert_eq!(track.last(), Stamp::from_nanos(4));
    }
}

//! The upstream: where it is, and the warm connections to it that one thread keeps.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokenlag_channel::http::Connection;
use tokenlag_channel::tls::ClientTls;
use tokenlag_channel::{ChannelError, Dial};
use tokenlag_probes::{Clock, MonoClock, Stamp, Transport};
use tokio::task::yield_now;

use crate::carried::{Carried, Total};
use crate::leg::Leg;
use crate::options::ProxyOptions;
use crate::pooled::Pooled;

/// Idle connections that a thread keeps; more are closed as they come back.
const IDLE_CONNECTIONS: usize = 1024;

/// Idle connections that are looked at before tokens have their turn again. A look is a system call of a microsecond.
const LOOKS: usize = 32;

/// How patient the proxy is with the upstream.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long name and connection may take together.
    pub connect: Duration,
    /// How long a reply may stay silent. There is no limit on its whole length.
    pub idle: Duration,
}

/// Whether an exchange failed on a connection that the upstream closed as idle just as it was taken: it can be repeated.
pub(crate) fn was_stale(anew: bool, error: &ChannelError, up_written: Option<Stamp>) -> bool {
    // Where nothing was written, nothing can have been worked on.
    let since = up_written.unwrap_or(MonoClock.now());
    !anew && error.is_stale(since)
}

/// Finds out whom to trust, once for all threads: what the options leave open is the system's to say. Whoever it is, the
/// threads share the sessions that can be resumed, where that is on.
///
/// # Errors
/// A channel that cannot be dialled, or cannot be dialled so.
pub(crate) fn complete(mut options: ProxyOptions) -> Result<ProxyOptions, ChannelError> {
    let channel = options.upstream_channel;
    if channel.dialled() != channel || channel == Transport::Direct {
        let what = format!("{channel} is no channel to dial an upstream by");
        return Err(ChannelError::Request(what));
    }
    let encrypted = options.upstream.is_tls() || channel.is_encrypted_always();
    if encrypted {
        let trust = match options.upstream_tls.take() {
            Some(given) => given,
            None => ClientTls::of_system()?,
        };
        options.upstream_tls = Some(match options.resumption {
            true => trust.with_resumption(),
            false => trust,
        });
    }
    Ok(options)
}

/// How to dial the upstream over TCP.
pub(crate) fn dial(options: &ProxyOptions) -> Dial {
    Dial {
        host: options.upstream.host().to_owned(),
        port: options.upstream.port(),
        path: String::new(),
        headers: Vec::new(),
        connect_timeout: options.patience.connect,
        idle_timeout: options.patience.idle,
        tls: options
            .upstream_tls
            .clone()
            .filter(|_| options.upstream.is_tls()),
        stamping: options.stamping.clone(),
        nagle: options.upstream_nagle,
    }
}

/// The way upstream where it is not HTTP/1.1.
pub(crate) fn leg(options: &ProxyOptions) -> Option<Leg> {
    let channel = options.upstream_channel;
    let mut dial = dial(options);
    match channel {
        Transport::Http | Transport::HttpCold => return None,
        _ if channel.is_encrypted_always() => dial.tls = options.upstream_tls.clone(),
        _ => {}
    }
    let authority = options.upstream.authority();
    Some(Leg::new(
        channel,
        options.upstream_encoding,
        authority,
        dial,
    ))
}

/// Warm connections of one thread: HTTP/1.1.
#[derive(Debug)]
pub(crate) struct Pool {
    dial: Dial,
    /// Every request has a connection of its own.
    cold: bool,
    /// Boxed, since they are handed on often.
    #[expect(clippy::vec_box, reason = "what is taken stays in its box")]
    idle: RefCell<Vec<Box<Pooled>>>,
    /// Where among the idle ones the next look begins: the last had no time for them.
    unseen: Cell<usize>,
    /// What its connections carried.
    total: Total,
}

impl Pool {
    pub(crate) fn new(options: &ProxyOptions) -> Self {
        let dial = dial(options);
        Self {
            total: Total::new(dial.tls.is_some()),
            dial,
            cold: options.upstream_channel == Transport::HttpCold,
            idle: RefCell::default(),
            unseen: Cell::default(),
        }
    }

    /// A connection, the warmest first, and whether it was made anew.
    pub(crate) async fn take(&self) -> Result<(Box<Pooled>, bool), ChannelError> {
        while let Some(mut connection) = self.pop() {
            if connection.is_fresh() {
                return Ok((connection, false));
            }
        }
        Ok((self.dial().await?, true))
    }

    /// A connection that nobody used yet.
    pub(crate) async fn dial(&self) -> Result<Box<Pooled>, ChannelError> {
        // What dialling keeps is large, and few exchanges dial: it is no part of theirs.
        let dialled = Box::pin(Connection::dial(&self.dial)).await?;
        Ok(Box::new(Pooled::new(dialled.connection, &self.total)))
    }

    /// Gives a connection back whose exchange is over.
    pub(crate) fn put(&self, mut connection: Box<Pooled>) {
        connection.book();
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_CONNECTIONS && !self.cold {
            idle.push(connection);
        }
    }

    /// Whether requests ask the upstream to close after them.
    pub(crate) fn is_cold(&self) -> bool {
        self.cold
    }

    /// How its connections are dialled.
    pub(crate) fn dialled(&self) -> &Dial {
        &self.dial
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        self.dial.idle_timeout
    }

    /// What its connections carried, those that are gone among them. An exchange counts when it is over.
    pub(crate) fn carried(&self) -> Carried {
        self.total.carried()
    }

    /// Books what idle connections did below their bytes, with turns for others in between. All that lie idle meanwhile are
    /// looked at: they are taken from the end and come back to it, and what is before them keeps its place. Those for which there
    /// was no time `until` then are the first of the next look; some are looked at in any case.
    pub(crate) async fn look(&self, until: Stamp) {
        let first = self.unseen.take();
        for (mut from, end) in [(first, usize::MAX), (0, first)] {
            while let Some(next) = self.look_from(from, end) {
                if MonoClock.now() >= until {
                    self.unseen.set(next);
                    return;
                }
                from = next;
                yield_now().await;
            }
        }
    }

    /// Looks at some from that place on, before that `end`; gives the place of the next, where there is one.
    fn look_from(&self, from: usize, end: usize) -> Option<usize> {
        let idle = self.idle.borrow();
        let end = idle.len().min(end);
        let next = end.min(from + LOOKS);
        // Some may have been taken for good since that place was noted.
        for connection in idle.get(from..next).unwrap_or_default() {
            connection.book_socket();
        }
        (next < end).then_some(next)
    }

    /// The channel that its connections are of.
    pub(crate) fn transport(&self) -> Transport {
        if self.cold {
            Transport::HttpCold
        } else {
            Transport::Http
        }
    }

    fn pop(&self) -> Option<Box<Pooled>> {
        self.idle.borrow_mut().pop()
    }
}

#[cfg(test)]
mod tests {
    use tokenlag_channel::{SocketWatch, tls};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// More than three looks are made in a row.
    const IDLE: usize = 3 * LOOKS + 1;

    /// A pool with so many idle connections, who watches them, and their other ends: what closes sends and is answered.
    async fn idle_pool() -> (Pool, SocketWatch, Vec<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let upstream = format!("http://127.0.0.1:{port}").parse().unwrap();
        let options = ProxyOptions::new(([127, 0, 0, 1], 0).into(), upstream);
        let pool = Pool::new(&options);
        let (mut lent, mut others) = (Vec::new(), Vec::new());
        for _ in 0..IDLE {
            lent.push(pool.dial().await.unwrap());
            others.push(listener.accept().await.unwrap().0);
        }
        lent.into_iter().for_each(|connection| pool.put(connection));
        let watch = options.stamping.watch().clone();
        assert_eq!(watch.so_far().packets_sent, 0);
        (pool, watch, others)
    }

    fn in_a_minute() -> Stamp {
        MonoClock.now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn idle_connections_are_looked_at_with_turns_for_others_in_between() {
        let (pool, watch, _others) = idle_pool().await;
        let mut seen = Vec::new();
        let others = async {
            for _ in 0..3 {
                seen.push(watch.so_far().packets_sent);
                yield_now().await;
            }
        };
        tokio::join!(biased; pool.look(in_a_minute()), others);
        let sent = watch.so_far().packets_sent;
        seen.push(sent);
        // Each has sent its part of the handshake at least.
        assert!(seen[0] >= LOOKS as u64 && sent >= IDLE as u64, "{seen:?}");
        assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
        pool.look(in_a_minute()).await;
        assert_eq!(watch.so_far().packets_sent, sent);
    }

    #[tokio::test]
    async fn a_look_that_has_no_time_goes_on_with_the_next() {
        let (pool, watch, _others) = idle_pool().await;
        let mut seen = Vec::new();
        for _ in 0..4 {
            pool.look(MonoClock.now()).await;
            seen.push(watch.so_far().packets_sent);
        }
        assert!(seen[0] >= LOOKS as u64, "{seen:?}");
        assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
        // It began anew, and a place that is gone meanwhile is passed over.
        pool.look(MonoClock.now()).await;
        let left = pool.idle.borrow_mut().split_off(LOOKS / 2);
        pool.look(MonoClock.now()).await;
        assert_eq!(pool.unseen.get(), 0);
        pool.idle.borrow_mut().extend(left);
        // All had been looked at.
        pool.look(in_a_minute()).await;
        assert_eq!(watch.so_far().packets_sent, seen[3]);
    }

    #[test]
    fn sessions_with_an_upstream_that_is_trusted_by_a_file_are_resumed_where_that_is_on() {
        let pem = tls::self_signed(&["localhost"]).unwrap().cert_pem;
        for on in [true, false] {
            let upstream = "https://127.0.0.1:1".parse().unwrap();
            let mut options = ProxyOptions::new(([127, 0, 0, 1], 0).into(), upstream);
            options.resumption = on;
            options.upstream_tls = Some(ClientTls::trusting(pem.as_bytes()).unwrap());
            let trust = complete(options).unwrap().upstream_tls.unwrap();
            // Early data needs a session to resume.
            assert_eq!(trust.with_early_data().sends_early_data(), on);
        }
    }
}

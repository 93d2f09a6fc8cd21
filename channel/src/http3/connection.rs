//! The QUIC connection under h3: quinn's, with streams of our own.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming};
use quinn::ConnectionError;
use tokenlag_probes::{Clock, MonoClock};

use super::streams::{BidiStream, RecvStream, SendStream, number};
use super::track::{Track, Tracks};
use crate::quic::socket::StampedSocket;

/// A stream that is being opened or accepted.
type Coming<T> = Option<Pin<Box<dyn Future<Output = Result<T, ConnectionError>> + Send + Sync>>>;

type BothWays = (quinn::SendStream, quinn::RecvStream);

/// Early data was not taken: what was sent can be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server did not take early data")]
pub(crate) struct NotTaken;

/// What the streams of a connection share.
#[derive(Clone, Debug)]
pub(crate) struct Under {
    pub(crate) connection: quinn::Connection,
    pub(crate) socket: Arc<StampedSocket>,
    pub(crate) tracks: Arc<Tracks>,
    /// The code with which a stream is stopped whose rest nobody wants.
    pub(crate) unwanted: Code,
}

impl Under {
    /// Closes the connection for what the peer had sent.
    pub(super) fn break_off(&self, code: Code, why: &[u8]) -> StreamErrorIncoming {
        self.tracks.break_off();
        self.connection.close(number(code.value()), why);
        lost(ConnectionError::LocallyClosed)
    }
}

/// A QUIC connection, as h3 wants it.
pub(crate) struct Connection {
    opener: Opener,
    coming_both_ways: Coming<BothWays>,
    coming_one_way: Coming<quinn::RecvStream>,
}

impl Connection {
    pub(crate) fn new(under: Under) -> Self {
        Self {
            opener: Opener::new(under),
            coming_both_ways: None,
            coming_one_way: None,
        }
    }
}

/// Opens streams of a connection.
pub(crate) struct Opener {
    under: Under,
    opening_both_ways: Coming<BothWays>,
    opening_one_way: Coming<quinn::SendStream>,
}

impl Opener {
    fn new(under: Under) -> Self {
        Self {
            under,
            opening_both_ways: None,
            opening_one_way: None,
        }
    }
}

impl Clone for Opener {
    fn clone(&self) -> Self {
        Self::new(self.under.clone())
    }
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = RecvStream;
    type OpenStreams = Opener;

    fn poll_accept_recv(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        let under = &self.opener.under;
        let coming = self.coming_one_way.get_or_insert_with(|| {
            let connection = under.connection.clone();
            Box::pin(async move { connection.accept_uni().await })
        });
        let accepted = ready!(coming.as_mut().poll(context));
        self.coming_one_way = None;
        let stream = accepted.map_err(ended)?;
        Poll::Ready(Ok(RecvStream::one_way(stream, under)))
    }

    fn poll_accept_bidi(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, ConnectionErrorIncoming>> {
        let under = &self.opener.under;
        let coming = self.coming_both_ways.get_or_insert_with(|| {
            let connection = under.connection.clone();
            Box::pin(async move { connection.accept_bi().await })
        });
        let accepted = ready!(coming.as_mut().poll(context));
        self.coming_both_ways = None;
        let (send, recv) = accepted.map_err(ended)?;
        let stopped = send.stopped();
        // Whether the stream was stopped or the connection lost, nobody is there to read on.
        let given_up = Box::pin(async move { drop(stopped.await) });
        let track = Track::new(recv.is_0rtt(), Some(given_up));
        Poll::Ready(Ok(BidiStream::new(send, recv, track, under)))
    }

    fn opener(&self) -> Opener {
        self.opener.clone()
    }
}

impl quic::OpenStreams<Bytes> for Connection {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(context)
    }

    fn poll_open_send(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        self.opener.poll_open_send(context)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opener.close(code, reason);
    }
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        let under = &self.under;
        // Nearly always there is one at once, and nothing is to be kept.
        let at_once = match self.opening_both_ways {
            None => pin!(under.connection.open_bi()).poll(context),
            Some(_) => Poll::Pending,
        };
        let opened = match at_once {
            Poll::Ready(opened) => opened,
            Poll::Pending => {
                let opening = self.opening_both_ways.get_or_insert_with(|| {
                    let connection = under.connection.clone();
                    Box::pin(async move { connection.open_bi().await })
                });
                ready!(opening.as_mut().poll(context))
            }
        };
        self.opening_both_ways = None;
        let (send, recv) = opened.map_err(lost)?;
        let track = Track::opened(MonoClock.now());
        // A request that is given up must not end within a frame: the peer would close the connection for it.
        track.condemn(Code::H3_REQUEST_CANCELLED);
        Poll::Ready(Ok(BidiStream::new(send, recv, track, under)))
    }

    fn poll_open_send(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        let under = &self.under;
        let opening = self.opening_one_way.get_or_insert_with(|| {
            let connection = under.connection.clone();
            Box::pin(async move { connection.open_uni().await })
        });
        let opened = ready!(opening.as_mut().poll(context));
        self.opening_one_way = None;
        let stream = opened.map_err(lost)?;
        Poll::Ready(Ok(SendStream::new(stream, Arc::default(), under)))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        if !self.under.tracks.is_outlived() {
            self.under.connection.close(number(code.value()), reason);
        }
    }
}

fn ended(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => ConnectionErrorIncoming::ApplicationClose {
            error_code: close.error_code.into_inner(),
        },
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

pub(super) fn lost(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming {
        connection_error: ended(error),
    }
}

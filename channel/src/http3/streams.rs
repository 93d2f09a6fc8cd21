//! The streams under h3: quinn's, with what passes stamped, counted and bounded.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use super::meter::Meter;
use super::track::{Arrival, Track, Tracks};
use crate::quic::socket::StampedSocket;

/// The most that one read takes of a stream.
const READ_LIMIT: usize = 64 * 1024;

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
    fn break_off(&self, code: Code, why: &[u8]) -> StreamErrorIncoming {
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
        let opening = self.opening_both_ways.get_or_insert_with(|| {
            let connection = under.connection.clone();
            Box::pin(async move { connection.open_bi().await })
        });
        let opened = ready!(opening.as_mut().poll(context));
        self.opening_both_ways = None;
        let (send, recv) = opened.map_err(lost)?;
        Poll::Ready(Ok(BidiStream::new(
            send,
            recv,
            Track::new(false, None),
            under,
        )))
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

/// A stream that carries an exchange.
pub(crate) struct BidiStream {
    send: SendStream,
    recv: RecvStream,
}

impl BidiStream {
    fn new(
        send: quinn::SendStream,
        recv: quinn::RecvStream,
        track: Arc<Track>,
        under: &Under,
    ) -> Self {
        under.tracks.insert(recv.id().into(), &track);
        Self {
            send: SendStream::new(send, Arc::clone(&track), under),
            recv: RecvStream {
                stream: recv,
                meter: Meter::of_exchange(),
                track,
                under: under.clone(),
                one_way: false,
                ended: false,
            },
        }
    }
}

impl quic::BidiStream<Bytes> for BidiStream {
    type SendStream = SendStream;
    type RecvStream = RecvStream;

    fn split(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }
}

impl quic::RecvStream for BidiStream {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(context)
    }

    fn stop_sending(&mut self, code: u64) {
        self.recv.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

impl quic::SendStream<Bytes> for BidiStream {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(context)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(context)
    }

    fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

/// The reading half of a stream. Dropped before its end, it tells the peer to stop.
pub(crate) struct RecvStream {
    stream: quinn::RecvStream,
    meter: Meter,
    track: Arc<Track>,
    under: Under,
    one_way: bool,
    ended: bool,
}

impl RecvStream {
    fn one_way(stream: quinn::RecvStream, under: &Under) -> Self {
        Self {
            stream,
            meter: Meter::of_one_way(),
            track: Arc::default(),
            under: under.clone(),
            one_way: true,
            ended: false,
        }
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let read = ready!(pin!(self.stream.read_chunk(READ_LIMIT, true)).poll(context));
        let chunk = match read.map_err(unread)? {
            Some(chunk) => chunk,
            None => {
                self.ended = true;
                // RFC 9114, section 7.1.
                let why = b"a stream ended inside a frame";
                return Poll::Ready(match self.meter.is_inside() {
                    true => Err(self.under.break_off(Code::H3_FRAME_ERROR, why)),
                    false => Ok(None),
                });
            }
        };
        let socket = &self.under.socket;
        socket.took(chunk.bytes.len());
        let arrival = Arrival {
            at: socket.read_at(),
            reads: socket.reads(),
        };
        match self.meter.feed(&chunk.bytes) {
            Ok(of_body) => {
                self.track.came(arrival, of_body);
                Poll::Ready(Ok(Some(chunk.bytes)))
            }
            Err(too_long) if self.one_way => {
                let why = too_long.to_string();
                let code = Code::H3_EXCESSIVE_LOAD;
                Poll::Ready(Err(self.under.break_off(code, why.as_bytes())))
            }
            Err(too_long) => {
                self.track.condemn(Code::H3_EXCESSIVE_LOAD);
                Poll::Ready(Err(StreamErrorIncoming::Unknown(Box::new(too_long))))
            }
        }
    }

    fn stop_sending(&mut self, code: u64) {
        self.ended = true;
        // A stream that ended cannot be stopped, and need not be.
        let _ = self.stream.stop(number(code));
    }

    fn recv_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.under.tracks.remove(self.stream.id().into());
        if !self.ended {
            // A stream that ended cannot be stopped, and need not be.
            let _ = self.stream.stop(number(self.under.unwanted.value()));
        }
    }
}

/// The writing half of a stream. Dropped before its end, it is finished, unless its track says that it is to be reset.
pub(crate) struct SendStream {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<Bytes>>,
    track: Arc<Track>,
    socket: Arc<StampedSocket>,
}

impl SendStream {
    fn new(stream: quinn::SendStream, track: Arc<Track>, under: &Under) -> Self {
        Self {
            stream,
            writing: None,
            track,
            socket: Arc::clone(&under.socket),
        }
    }
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(data) = &mut self.writing
            && data.has_remaining()
        {
            let stream = Pin::new(&mut self.stream);
            let written = ready!(stream.poll_write(context, data.chunk())).map_err(unwritten)?;
            data.advance(written);
            self.track.sent.fetch_add(written as u64, Relaxed);
            self.socket.gave(written);
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            let what = "a frame was begun before the one before it was written".to_owned();
            return Err(StreamErrorIncoming::ConnectionErrorIncoming {
                connection_error: ConnectionErrorIncoming::InternalError(what),
            });
        }
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let finished = self.stream.finish();
        Poll::Ready(finished.map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))))
    }

    fn reset(&mut self, code: u64) {
        // A stream that the peer stopped has nothing left to reset.
        let _ = self.stream.reset(number(code));
    }

    fn send_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if let Some(code) = self.track.verdict() {
            // A stream that the peer stopped has nothing left to reset.
            let _ = self.stream.reset(code);
        }
    }
}

fn id(id: quinn::StreamId) -> StreamId {
    let number: u64 = id.into();
    StreamId::try_from(number).expect("both are numbers of 62 bits")
}

fn number(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
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

fn lost(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming {
        connection_error: ended(error),
    }
}

fn unread(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated {
            error_code: code.into_inner(),
        },
        ReadError::ConnectionLost(error) => lost(error),
        ReadError::ZeroRttRejected => StreamErrorIncoming::Unknown(Box::new(NotTaken)),
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

fn unwritten(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated {
            error_code: code.into_inner(),
        },
        WriteError::ConnectionLost(error) => lost(error),
        WriteError::ZeroRttRejected => StreamErrorIncoming::Unknown(Box::new(NotTaken)),
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

//! The streams under h3: quinn's, with what passes stamped, counted and bounded.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ReadError, VarInt, WriteError};

use super::connection::{NotTaken, Under, lost};
use super::meter::Meter;
use super::track::{Arrival, Track};
use crate::quic::socket::StampedSocket;
use crate::quic::stop::Stop;

/// The most that one read takes of a stream.
const READ_LIMIT: usize = 64 * 1024;

/// A stream that carries an exchange.
pub(crate) struct BidiStream {
    send: SendStream,
    recv: RecvStream,
}

impl BidiStream {
    pub(super) fn new(
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
    pub(super) fn one_way(stream: quinn::RecvStream, under: &Under) -> Self {
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
            at: socket.came_at(),
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

/// The writing half of a stream. Dropped before its end, it is finished by quinn, unless its track says that it is to be
/// reset.
pub(crate) struct SendStream {
    stream: quinn::SendStream,
    stop: Stop,
    writing: Option<WriteBuf<Bytes>>,
    track: Arc<Track>,
    socket: Arc<StampedSocket>,
    finished: bool,
}

impl SendStream {
    pub(super) fn new(stream: quinn::SendStream, track: Arc<Track>, under: &Under) -> Self {
        Self {
            stream,
            stop: Stop::default(),
            writing: None,
            track,
            socket: Arc::clone(&under.socket),
            finished: false,
        }
    }
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(data) = &mut self.writing
            && data.has_remaining()
        {
            let write = self
                .stop
                .poll_write(&mut self.stream, context, data.chunk());
            let written = ready!(write).map_err(unwritten)?;
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
        self.finished |= finished.is_ok();
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
        if !self.finished
            && let Some(code) = self.track.verdict()
        {
            // A stream that the peer stopped has nothing left to reset.
            let _ = self.stream.reset(code);
        }
    }
}

fn id(id: quinn::StreamId) -> StreamId {
    let number: u64 = id.into();
    StreamId::try_from(number).expect("both are numbers of 62 bits")
}

pub(super) fn number(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
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

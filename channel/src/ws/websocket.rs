//! One WebSocket after its opening, whichever end opened it: one reader, and writers that take turns.
//!
//! A writer writes to the socket itself: no message waits for another task to carry it. The library remembers one writer
//! to wake, so writers queue for their turn, in the order in which they came. A peer that takes no bytes holds all writers
//! of its connection up, and nobody else's. A peer that sends many small frames at once lets other tasks have their turn.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Mutex;
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::farewell::Farewell;
use super::socket::{Shared, Stamped};
use super::{Text, config};
use crate::Counters;
use crate::bounds::{Room, Share};

/// How long the last bytes and the peer's own farewell are waited for.
const LINGER: Duration = Duration::from_secs(1);

/// Frames that are taken in a row before other tasks of the thread have their turn.
const FRAMES: u32 = 32;

/// A WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    socket: Shared,
    /// Borrowed within one poll, never across an await.
    stream: RefCell<WebSocketStream<Shared>>,
    role: Role,
    room: Arc<Room>,
    turn: Mutex<()>,
    /// Frames that were there without waiting, since it was waited last.
    in_a_row: Cell<u32>,
    /// A ping was read, and its pong may not have left.
    owes_pong: Cell<bool>,
    /// Something was put in that may not have left.
    unflushed: Cell<bool>,
    /// A write failed: nothing more can be sent.
    broken: Cell<bool>,
    stalled: Duration,
}

/// What the peer sent.
#[derive(Debug)]
pub enum Received {
    /// A text message, with the stamps of the first and the last read that carried it.
    Text {
        /// The message.
        text: Text,
        /// Read with its first byte.
        in_head: Stamp,
        /// Read with its last byte.
        in_body: Stamp,
    },
    /// A binary message.
    Binary(Bytes),
    /// The peer said goodbye; `None` where it is gone without a word.
    Closed(Option<Farewell>),
    /// The peer sends, yet takes nothing of what it is owed (the answers to its pings): it is given up.
    Stalled,
}

impl WebSocket {
    /// Takes over a socket after its opening. A peer that takes not one byte for `stalled` is given up. What is kept of its
    /// messages takes of the `room`, where there is one.
    pub(super) async fn new(
        socket: Stamped,
        role: Role,
        stalled: Duration,
        room: Option<Arc<Room>>,
    ) -> Self {
        let socket = Shared::new(socket);
        let stream = WebSocketStream::from_raw_socket(socket.clone(), role, Some(config())).await;
        Self {
            socket,
            stream: RefCell::new(stream),
            role,
            room: room.unwrap_or_else(|| Room::new(usize::MAX)),
            turn: Mutex::new(()),
            in_a_row: Cell::new(0),
            owes_pong: Cell::new(false),
            unflushed: Cell::new(false),
            broken: Cell::new(false),
            stalled,
        }
    }

    /// A share, empty yet, of the room that all connections of the door have: for what is kept of this one's messages.
    pub fn share(&self) -> Share {
        Share::new(&self.room)
    }

    /// The next message. Answers pings on the way. May be cancelled without loss; only one task may read.
    ///
    /// # Errors
    /// The peer broke the protocol, or sent a message that is too long: nothing more can be read. The farewell says why.
    pub async fn receive(&self) -> Result<Received, Farewell> {
        loop {
            if self.owes_pong.get() {
                // A peer that pings and takes no pongs is not read on: they would pile up.
                match self.flush().await {
                    Ok(()) => self.owes_pong.set(false),
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                        return Ok(Received::Stalled);
                    }
                    Err(_) => return Ok(Received::Closed(None)),
                }
            }
            self.make_small();
            match self.next().await {
                Some(Ok(Message::Text(text))) => {
                    let (in_head, in_body) = self.socket.lend().take_message_stamps(text.len());
                    return Ok(Received::Text {
                        text,
                        in_head,
                        in_body,
                    });
                }
                Some(Ok(Message::Binary(bytes))) => {
                    self.socket.lend().take_message_stamps(bytes.len());
                    return Ok(Received::Binary(bytes));
                }
                // The library answers pings itself.
                Some(Ok(message @ (Message::Ping(_) | Message::Pong(_) | Message::Frame(_)))) => {
                    self.owes_pong.set(message.is_ping());
                }
                Some(Ok(Message::Close(frame))) => {
                    return Ok(Received::Closed(Some(Farewell::of_frame(frame))));
                }
                Some(Err(error)) => return gone_or_broken(error),
                None => return Ok(Received::Closed(None)),
            }
        }
    }

    /// The next frame of the library. Cancelled, it leaves all where it is.
    async fn next(&self) -> Option<Result<Message, Error>> {
        if self.in_a_row.get() == FRAMES {
            self.in_a_row.set(0);
            yield_now().await;
        }
        poll_fn(|context| {
            let next = self.stream.borrow_mut().poll_next_unpin(context);
            let in_a_row = match next {
                Poll::Ready(_) => self.in_a_row.get() + 1,
                Poll::Pending => 0,
            };
            self.in_a_row.set(in_a_row);
            next
        })
        .await
    }

    /// The library's buffer stays as large as the largest frame was. After a large message nothing of the next is in it: the
    /// library begins anew with a small one.
    fn make_small(&self) {
        if self.unflushed.get() || !self.socket.look().is_after_large() {
            return;
        }
        let Ok(_turn) = self.turn.try_lock() else {
            return;
        };
        let socket = self.socket.clone();
        let anew = WebSocketStream::from_raw_socket(socket, self.role, Some(config()));
        if let Some(anew) = anew.now_or_never() {
            self.stream.replace(anew);
        }
    }

    /// Sends text messages and flushes them; the stamp was taken before the write that carried the last of them.
    ///
    /// # Errors
    /// The peer is gone, or took nothing for too long ([`io::ErrorKind::TimedOut`]).
    pub async fn send(&self, texts: impl IntoIterator<Item = Text>) -> io::Result<Stamp> {
        let mut texts = texts.into_iter().peekable();
        if texts.peek().is_none() {
            return Ok(MonoClock.now());
        }
        self.write(texts.map(Message::Text)).await
    }

    /// Sends a text message as [`Self::send`] does. Given up before it is over, it may have left in part once `begun` is set:
    /// then [`Self::flush`] sees the rest leave.
    pub(super) async fn send_noting(&self, text: Text, begun: &Cell<bool>) -> io::Result<Stamp> {
        let message = std::iter::once(Message::Text(text));
        self.write_noting(message, || begun.set(true)).await
    }

    /// Sends a binary message.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_binary(&self, bytes: Bytes) -> io::Result<Stamp> {
        self.write([Message::Binary(bytes)].into_iter()).await
    }

    /// Asks the peer for a sign of life, which [`Self::read_at`] tells of.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn ping(&self) -> io::Result<()> {
        let ping = Message::Ping(Bytes::new());
        self.write([ping].into_iter()).await.map(drop)
    }

    /// Says goodbye, or answers the peer's goodbye (`None`), and sees the connection to its end.
    pub async fn close(&self, farewell: Option<&Farewell>) {
        let closing = async {
            let said = match farewell {
                Some(farewell) => {
                    let frame = Message::Close(farewell.frame());
                    self.write([frame].into_iter()).await.map(drop)
                }
                None => self.flush().await,
            };
            // What was not read yet would make the system reset the connection, and take the farewell back.
            if said.is_ok() {
                poll_fn(|context| self.poll_drain(context)).await;
            }
        };
        // A peer that neither takes nor answers it is left without.
        let _ = timeout(LINGER, closing).await;
    }

    /// When the last read returned: the peer's last sign of life.
    pub fn read_at(&self) -> Stamp {
        self.socket.look().read_at()
    }

    /// When the first byte of a message was read that is not whole yet.
    pub fn begun_at(&self) -> Option<Stamp> {
        self.socket.look().begun_at()
    }

    /// Reads that returned bytes.
    pub(super) fn reads(&self) -> u64 {
        self.socket.look().reads()
    }

    /// Books what the connection did below its bytes, where that is watched.
    pub(super) fn book(&self) {
        self.socket.look().book();
    }

    /// What the connection did so far.
    pub fn counters(&self) -> Counters {
        self.socket.look().counters()
    }

    async fn write(&self, messages: impl Iterator<Item = Message>) -> io::Result<Stamp> {
        self.write_noting(messages, || ()).await
    }

    /// Writes and flushes; `begins` is called before each message from which on some of it may have left.
    async fn write_noting(
        &self,
        mut messages: impl Iterator<Item = Message>,
        begins: impl Fn(),
    ) -> io::Result<Stamp> {
        let _turn = self.turn.lock().await;
        let mut next = messages.next();
        let sending = poll_fn(|context| {
            let mut stream = self.stream.borrow_mut();
            while next.is_some() {
                ready!(stream.poll_ready_unpin(context))?;
                if let Some(message) = next.take() {
                    begins();
                    stream.start_send_unpin(message)?;
                }
                next = messages.next();
            }
            ready!(stream.poll_flush_unpin(context))?;
            Poll::Ready(Ok(self.socket.look().written_at()))
        });
        self.unless_stalled(sending).await
    }

    /// Sees what was put in leave.
    pub(super) async fn flush(&self) -> io::Result<()> {
        let _turn = self.turn.lock().await;
        let flushing = poll_fn(|context| self.stream.borrow_mut().poll_flush_unpin(context));
        self.unless_stalled(flushing).await
    }

    /// Sees a write to its end, for as long as the peer takes some of it.
    async fn unless_stalled<T>(
        &self,
        writing: impl Future<Output = Result<T, Error>>,
    ) -> io::Result<T> {
        if self.broken.get() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.unflushed.set(true);
        let mut writing = pin!(writing);
        // Nearly every write is over at once; only the others need a timer.
        let at_once = poll_fn(|context| Poll::Ready(writing.as_mut().poll(context))).await;
        let written = match at_once {
            Poll::Ready(written) => written,
            Poll::Pending => loop {
                let before = self.counters().bytes_sent;
                match timeout(self.stalled, writing.as_mut()).await {
                    Ok(written) => break written,
                    Err(_) if self.counters().bytes_sent > before => {}
                    Err(_) => break Err(Error::Io(io::ErrorKind::TimedOut.into())),
                }
            },
        };
        match written {
            Ok(written) => {
                self.unflushed.set(false);
                Ok(written)
            }
            Err(error) => {
                self.broken.set(true);
                Err(match error {
                    Error::Io(error) => error,
                    other => io::Error::other(other),
                })
            }
        }
    }

    /// Sends the end of the stream, then reads and forgets what still comes, to the peer's own end.
    fn poll_drain(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut stamped = self.socket.lend();
        let mut socket = Pin::new(stamped.under());
        // An end that cannot be sent, or a peer that is gone, is an end too.
        let _ = ready!(socket.as_mut().poll_shutdown(context));
        let mut room = [0; 16 * 1024];
        loop {
            let mut room = ReadBuf::new(&mut room);
            let read = ready!(socket.as_mut().poll_read(context, &mut room));
            if read.is_err() || room.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }
}

/// Whether an error of the library means that the peer is gone, or that it must be told why nobody listens any more.
fn gone_or_broken(error: Error) -> Result<Received, Farewell> {
    let (code, reason) = match error {
        Error::Capacity(error) => (Farewell::TOO_BIG, error.to_string()),
        Error::Io(error) if error.kind() == io::ErrorKind::OutOfMemory => {
            let why = "too many requests are being served at once; try again later";
            (Farewell::TRY_AGAIN, why.to_owned())
        }
        Error::Utf8(_) => (Farewell::NOT_UTF8, "a text message is not UTF-8".to_owned()),
        Error::Protocol(
            ProtocolError::ResetWithoutClosingHandshake | ProtocolError::ReceivedAfterClosing,
        ) => return Ok(Received::Closed(None)),
        Error::Protocol(error) => (Farewell::PROTOCOL, error.to_string()),
        _ => return Ok(Received::Closed(None)),
    };
    Err(Farewell::new(code, reason))
}

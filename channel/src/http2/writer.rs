//! One reply on a stream of an accepted HTTP/2 connection.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use tokenlag_probes::Stamp;

use super::ledger::Sent;
use super::server::Inner;
use crate::bounds::{Share, in_time};
use crate::fields;
use crate::pieces::Pieces;

/// Writes one reply. Dropped before its end has left, it resets the stream, so that the client never takes a reply that was
/// cut off for a whole one, and what it does not take is not kept for it.
#[derive(Debug)]
pub struct ReplyWriter(pub(crate) Box<Writing>);

/// What a writer keeps. Boxed, since the task that serves an exchange is moved about before it runs.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) server: Rc<Inner>,
    pub(crate) id: u32,
    /// What the request takes of the memory that all have together.
    pub(crate) share: Share,
    out: Out,
    head: Option<http::Response<()>>,
    /// What the next flush sends of it.
    body: Pieces,
    /// Bytes of the body that were handed to the library.
    handed: u64,
    /// The reply is whole with what was added.
    whole: bool,
    finished: bool,
}

#[derive(Debug)]
enum Out {
    Head(SendResponse<Bytes>),
    Body(SendStream<Bytes>),
    /// All has left.
    Nothing,
}

impl ReplyWriter {
    pub(crate) fn new(server: Rc<Inner>, id: u32, respond: SendResponse<Bytes>) -> Self {
        Self(Box::new(Writing {
            share: Share::new(&server.room),
            server,
            id,
            out: Out::Head(respond),
            head: None,
            body: Pieces::default(),
            handed: 0,
            whole: false,
            finished: false,
        }))
    }

    /// Adds the head to what the next flush sends. Fields of one connection alone are left out.
    pub fn head(&mut self, status: u16, fields: &[(String, Bytes)]) {
        self.0.head = Some(fields::response(status, fields));
    }

    /// Adds bytes of the body to what the next flush sends.
    pub fn data(&mut self, bytes: Bytes) {
        self.0.body.push(bytes);
    }

    /// The reply ends with what the next flush sends.
    pub fn end(&mut self) {
        self.0.whole = true;
    }

    /// Sends what was added, as one DATA frame where the peer's limits allow, and returns once the socket took it: a
    /// client that reads slowly is waited for. The stamp was taken before the write of the last of it, which happens
    /// within this call unless the socket or the client's windows are full.
    ///
    /// # Errors
    /// The client is gone or gave the stream up; [`io::ErrorKind::TimedOut`] where it takes no bytes for too long.
    pub async fn flush(&mut self) -> io::Result<Stamp> {
        self.hand_over()?;
        let (at, last) = self.written().await?;
        if self.0.finished {
            let _letting_go = self.0.server.nudge.let_go(last);
            self.0.out = Out::Nothing;
        }
        Ok(at)
    }

    /// Hands what was added to the library, and lets leave of it what the socket takes.
    fn hand_over(&mut self) -> io::Result<()> {
        let body = self.0.body.take();
        let nothing_left = body.is_empty();
        let mut ends = self.0.whole && !self.0.finished;
        let _hush = self.0.server.nudge.hush();
        if let (Some(head), Out::Head(respond)) = (self.0.head.take(), &mut self.0.out) {
            let sending = respond
                .send_response(head, ends && nothing_left)
                .map_err(gone)?;
            self.0.out = Out::Body(sending);
            self.0.finished = ends && nothing_left;
            ends &= !nothing_left;
        }
        if !nothing_left || ends {
            let Out::Body(sending) = &mut self.0.out else {
                let what = "a reply begins with its head";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            };
            self.0.handed += body.len() as u64;
            sending.send_data(body, ends).map_err(gone)?;
            self.0.finished |= ends;
        }
        self.0.server.push();
        Ok(())
    }

    /// Returns once everything that was handed over has left; also whether the stream was the last thing that went on.
    async fn written(&self) -> io::Result<(Stamp, bool)> {
        loop {
            let sent = {
                let ledger = self.0.server.shared.ledger();
                let sent = ledger.sent(self.0.id).ok_or_else(lost)?;
                if let Some(at) = self.left(sent) {
                    return Ok((at, ledger.is_last(self.0.id)));
                }
                sent
            };
            self.progress(sent).await?;
        }
    }

    /// Returns once more than `before` has left. Boxed, since it is seldom waited for.
    fn progress(&self, before: Sent) -> Pin<Box<dyn Future<Output = io::Result<()>>>> {
        let (server, id) = (Rc::clone(&self.0.server), self.0.id);
        Box::pin(async move {
            let stalled = server.limits.stalled;
            let progress =
                poll_fn(|context| server.shared.ledger().poll_progress(id, before, context));
            let progress = in_time(stalled, progress).await.map_err(|_| {
                let why = format!("the client took no bytes for {stalled:?}");
                io::Error::new(io::ErrorKind::TimedOut, why)
            })?;
            progress.map(drop).map_err(|()| lost())
        })
    }

    /// When the last of what was handed over left, where it did.
    fn left(&self, sent: Sent) -> Option<Stamp> {
        let all = sent.bytes >= self.0.handed && (sent.ended || !self.0.finished);
        sent.at.filter(|_| all)
    }

    /// Ends the reply, where its end was not sent yet.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub async fn finish(mut self) -> io::Result<()> {
        self.0.whole = true;
        if self.0.finished {
            return Ok(());
        }
        self.flush().await.map(drop)
    }

    /// Returns when the client gives the reply up or is gone. May be cancelled without loss.
    pub async fn given_up(&self) {
        poll_fn(|context| self.0.server.shared.ledger().poll_gone(self.0.id, context)).await;
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let there = match &mut self.out {
            Out::Head(respond) => {
                respond.send_reset(Reason::INTERNAL_ERROR);
                true
            }
            Out::Body(sending) => {
                sending.send_reset(Reason::INTERNAL_ERROR);
                true
            }
            Out::Nothing => false,
        };
        if there {
            self.server.push();
        }
        self.server.shared.ledger().forget(self.id);
    }
}

#[cold]
fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the client gave the reply up")
}

#[cold]
fn gone(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}

//! A response that is arriving over HTTP/3.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use h3::client::RequestStream;
use h3::error::StreamError;
use http::Response;
use tokenlag_probes::Stamp;

use super::client::Shared;
use super::live::{Live, Spoken};
use super::streams::BidiStream;
use super::track::{Track, Tracks};
use crate::overlap::watched;
use crate::{ChannelError, Chunk, Opening};

/// A response that is arriving. Dropped before its end, it stops its stream; the connection lives on.
pub struct ClientReply {
    client: Rc<Shared>,
    live: Rc<Live>,
    stream: RequestStream<BidiStream, Bytes>,
    track: Arc<Track>,
    tracks: Arc<Tracks>,
    opening: Opening,
    /// The socket's count of receives at the last read that carried bytes of this stream.
    reads: Option<u64>,
    ordinal: u32,
    head: Response<()>,
    ended: bool,
}

impl std::fmt::Debug for ClientReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientReply")
            .field("head", &self.head)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl ClientReply {
    pub(super) fn new(
        client: &Rc<Shared>,
        live: &Rc<Live>,
        spoken: &Spoken,
        stream: RequestStream<BidiStream, Bytes>,
        track: Arc<Track>,
        opening: Opening,
    ) -> Self {
        Self {
            client: Rc::clone(client),
            live: Rc::clone(live),
            track,
            tracks: Arc::clone(&spoken.tracks),
            stream,
            opening,
            reads: None,
            ordinal: 0,
            head: Response::new(()),
            ended: false,
        }
    }

    /// Waits for the head.
    pub(super) async fn head(&mut self) -> Result<(), StreamError> {
        let (head, overlapped) = watched(pin!(self.stream.recv_response())).await;
        self.opening.overlapped |= overlapped;
        self.head = head?;
        self.reads = self.track.first().map(|first| first.reads);
        Ok(())
    }

    pub(crate) fn opening(&self) -> Opening {
        self.opening
    }

    pub(crate) fn head_at(&self) -> Stamp {
        let last = || self.track.last();
        self.track.first().map_or_else(last, |first| first.at)
    }

    pub(crate) fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    pub(crate) fn fields(&self) -> Vec<(String, Bytes)> {
        let fields = self.head.headers().iter();
        let fields = fields.map(|(name, value)| {
            let value = Bytes::copy_from_slice(value.as_bytes());
            (name.as_str().to_owned(), value)
        });
        fields.collect()
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Chunk>, ChannelError> {
        if self.ended {
            return Ok(None);
        }
        let client = &self.client;
        let read = self
            .live
            .timers
            .in_time(
                client.dial.idle_timeout,
                poll_fn(|context| self.stream.poll_recv_data(context)),
            )
            .await
            .map_err(|_| client.silent("further bytes"))?
            .map_err(|error| client.explained(&self.tracks, &error))?;
        let Some(mut piece) = read else {
            self.ended = true;
            return Ok(None);
        };
        let length = piece.remaining();
        let bytes = piece.copy_to_bytes(length);
        drop(piece);
        let arrival = self.track.take(length);
        let reads = arrival.map(|arrival| arrival.reads);
        if let Some(before) = std::mem::replace(&mut self.reads, reads)
            && Some(before) != reads
        {
            self.ordinal += 1;
        }
        Ok(Some(Chunk {
            at: arrival.map_or_else(|| self.track.last(), |arrival| arrival.at),
            ordinal: self.ordinal,
            bytes,
        }))
    }

    pub(crate) async fn finish(mut self: Box<Self>) -> Result<(), ChannelError> {
        while self.next().await?.is_some() {}
        Ok(())
    }
}

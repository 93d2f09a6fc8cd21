//! The dialling end of HTTP/3.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use h3::client::{self, RequestStream, SendRequest};
use h3::error::{Code, StreamError};
use http::HeaderValue;
use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::meter::TooLong;
use super::streams::{self, BidiStream, NotTaken, Opener, Under};
use super::track::{Track, Tracks};
use super::{ALPN, MAX_FIELDS, is_offence};
use crate::quic::dialled::Dialled;
use crate::quic::early::SAFE_TO_REPLAY;
use crate::{ChannelError, Chunk, Counters, Dial, Opening, Request};

/// A client with at most one connection at a time, on a socket of its own. Clones share it.
#[derive(Clone, Debug)]
pub struct Client(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    dial: Dial,
    /// Held while a connection is made: exchanges that begin meanwhile wait for it instead of making another.
    live: Mutex<Option<Rc<Live>>>,
    /// Counters of the connections that are gone.
    past: Rc<Cell<Counters>>,
}

/// A connection; what it counted is kept when its last exchange is over.
#[derive(Debug)]
struct Live {
    dialled: Arc<Dialled>,
    spoken: RefCell<Spoken>,
    /// Held while HTTP/3 is begun again.
    again: Mutex<()>,
    /// The server takes no more exchanges on it.
    leaving: Cell<bool>,
    past: Rc<Cell<Counters>>,
}

/// HTTP/3 on a connection. Where early data is not taken it is begun anew, since its settings were among it.
#[derive(Clone)]
struct Spoken {
    sender: SendRequest<Opener, Bytes>,
    tracks: Arc<Tracks>,
}

impl std::fmt::Debug for Spoken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spoken").finish_non_exhaustive()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.past.set(self.past.get() + self.dialled.counters());
    }
}

/// Why an exchange has no reply.
struct Unanswered {
    error: ChannelError,
    /// The server did not work on it: it can be sent again.
    untouched: bool,
}

impl From<ChannelError> for Unanswered {
    fn from(error: ChannelError) -> Self {
        Self {
            error,
            untouched: false,
        }
    }
}

impl Client {
    /// A client that will dial when it is first needed.
    pub fn new(dial: Dial) -> Self {
        Self(Rc::new(Shared {
            dial,
            live: Mutex::default(),
            past: Rc::default(),
        }))
    }

    /// Connects now, where no connection is there.
    ///
    /// # Errors
    /// No connection, or a peer that shows another certificate or does not speak HTTP/3.
    pub async fn connect(&self) -> Result<(), ChannelError> {
        self.0.live().await.map(drop)
    }

    /// Sends a request on a stream of its own and waits for the reply's head.
    ///
    /// What the server says it did not begin (H3_REQUEST_REJECTED, GOAWAY), and early data that it did not take, is sent
    /// once more.
    ///
    /// # Errors
    /// No connection, one that ends or falls silent, a stream that is reset, or frames that break the protocol.
    pub async fn open(&self, request: &Request) -> Result<ClientReply, ChannelError> {
        let request = request.fields()?;
        let (live, resolved) = self.0.live().await?;
        match self.0.exchange(&live, resolved, request).await {
            Err(unanswered) if unanswered.untouched => {
                drop(live);
                let (live, anew) = self.0.live().await?;
                let again = self.0.exchange(&live, anew.or(resolved), request).await;
                again.map_err(|unanswered| unanswered.error)
            }
            reply => reply.map_err(|unanswered| unanswered.error),
        }
    }

    /// What the client did so far; a connection that is being made, or that only ends its exchanges, is left out.
    pub fn counters(&self) -> Counters {
        let live = self.0.live.try_lock();
        let live = live
            .ok()
            .and_then(|live| Some(live.as_ref()?.dialled.counters()));
        self.0.past.get() + live.unwrap_or_default()
    }

    /// Closes the connection and lets the farewell leave.
    pub async fn close(self) {
        if let Some(live) = self.0.live.lock().await.take() {
            live.dialled.close(Code::H3_NO_ERROR.value() as u32).await;
        }
    }
}

impl Shared {
    /// The connection; where it was just made, also when the name was resolved.
    async fn live(&self) -> Result<(Rc<Live>, Option<Stamp>), ChannelError> {
        let mut slot = self.live.lock().await;
        if let Some(live) = &*slot {
            if live.dialled.is_open() && !live.leaving.get() {
                return Ok((Rc::clone(live), None));
            }
            *slot = None;
        }
        let (dialled, resolved) = Dialled::new(&self.dial, ALPN, "HTTP/3").await?;
        let dialled = Arc::new(dialled);
        let spoken = speak(&dialled)
            .await
            .map_err(|error| lost(&self.dial, &error))?;
        let live = Rc::new(Live {
            dialled,
            spoken: RefCell::new(spoken),
            again: Mutex::default(),
            leaving: Cell::new(false),
            past: Rc::clone(&self.past),
        });
        *slot = Some(Rc::clone(&live));
        Ok((live, Some(resolved)))
    }

    async fn exchange(
        self: &Rc<Self>,
        live: &Rc<Live>,
        resolved: Option<Stamp>,
        request: &http::Request<Bytes>,
    ) -> Result<ClientReply, Unanswered> {
        let mut spoken = live.spoken.borrow().clone();
        let sent = self.send(live, &mut spoken, resolved, request).await;
        let error = match sent {
            Ok(reply) => return Ok(reply),
            Err(Failed::Stream(error)) => error,
            Err(Failed::Channel(error)) => return Err(error.into()),
        };
        let untouched = match &error {
            StreamError::RemoteClosing { .. } => {
                live.leaving.set(true);
                true
            }
            StreamError::RemoteTerminate { code, .. } if *code == Code::H3_REQUEST_REJECTED => {
                live.leaving.set(true);
                true
            }
            StreamError::Undefined { 0: cause, .. } if cause.is::<NotTaken>() => {
                live.begin_again(&spoken)
                    .await
                    .map_err(|error| lost(&self.dial, &error))?;
                true
            }
            _ => false,
        };
        Err(Unanswered {
            error: explained(&self.dial, &spoken.tracks, &error),
            untouched,
        })
    }

    async fn send(
        self: &Rc<Self>,
        live: &Rc<Live>,
        spoken: &mut Spoken,
        resolved: Option<Stamp>,
        request: &http::Request<Bytes>,
    ) -> Result<ClientReply, Failed> {
        let mut head = http::Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.headers_mut() = request.headers().clone();
        if live.dialled.is_early() {
            let mark = HeaderValue::from_static("1");
            head.headers_mut().insert(SAFE_TO_REPLAY, mark);
        }
        let connected = MonoClock.now();
        let idle = self.dial.idle_timeout;
        let send = async {
            let mut stream = spoken.sender.send_request(head).await?;
            if !request.body().is_empty() {
                stream.send_data(request.body().clone()).await?;
            }
            let written = MonoClock.now();
            stream.finish().await?;
            Ok::<_, StreamError>((stream, written))
        };
        let (stream, written) = timeout(idle, send)
            .await
            .map_err(|_| self.silent("room for the request"))??;
        let track = spoken.tracks.get(stream.id().into_inner());
        let mut reply = ClientReply {
            client: Rc::clone(self),
            _live: Rc::clone(live),
            stream,
            track,
            tracks: Arc::clone(&spoken.tracks),
            opening: Opening {
                resolved,
                transport_connected: None,
                connected,
                written,
            },
            reads: None,
            ordinal: 0,
            head: http::Response::new(()),
            ended: false,
        };
        reply.head = timeout(idle, reply.stream.recv_response())
            .await
            .map_err(|_| self.silent("reply"))??;
        reply.reads = reply.track.first().map(|first| first.reads);
        Ok(reply)
    }

    fn silent(&self, what: &'static str) -> ChannelError {
        ChannelError::Timeout {
            address: self.dial.authority(),
            what,
            after: self.dial.idle_timeout,
        }
    }
}

/// Why a request was not answered.
enum Failed {
    Channel(ChannelError),
    Stream(StreamError),
}

impl From<ChannelError> for Failed {
    fn from(error: ChannelError) -> Self {
        Self::Channel(error)
    }
}

impl From<StreamError> for Failed {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

impl Live {
    /// Begins HTTP/3 anew on the connection, where nobody did so since `spoken`.
    async fn begin_again(&self, spoken: &Spoken) -> Result<(), String> {
        let _turn = self.again.lock().await;
        if !Arc::ptr_eq(&self.spoken.borrow().tracks, &spoken.tracks) {
            return Ok(());
        }
        self.dialled.settled().await;
        spoken.tracks.outlive();
        let fresh = speak(&self.dialled).await?;
        self.spoken.replace(fresh);
        Ok(())
    }
}

/// Begins HTTP/3 on a connection: opens its control streams and sends the settings.
async fn speak(dialled: &Arc<Dialled>) -> Result<Spoken, String> {
    let tracks = Arc::new(Tracks::default());
    let under = Under {
        connection: dialled.connection.clone(),
        socket: Arc::clone(&dialled.socket),
        tracks: Arc::clone(&tracks),
        unwanted: Code::H3_REQUEST_CANCELLED,
    };
    let (mut connection, sender) = client::builder()
        .max_field_section_size(MAX_FIELDS)
        .send_grease(false)
        .build(streams::Connection::new(under))
        .await
        .map_err(|error| error.to_string())?;
    let (driven, its_tracks) = (Arc::clone(dialled), Arc::clone(&tracks));
    tokio::spawn(async move {
        // The server's settings come once: they are for whoever speaks when it is known whether early data was taken.
        driven.settled().await;
        drop(driven);
        if !its_tracks.is_outlived() {
            connection.wait_idle().await;
        }
    });
    Ok(Spoken { sender, tracks })
}

fn lost(dial: &Dial, detail: &dyn std::fmt::Display) -> ChannelError {
    ChannelError::Lost {
        address: dial.authority(),
        detail: detail.to_string(),
    }
}

fn explained(dial: &Dial, tracks: &Tracks, error: &StreamError) -> ChannelError {
    let broken = match error {
        StreamError::StreamError { .. } | StreamError::HeaderTooBig { .. } => true,
        StreamError::ConnectionError { 0: error, .. } => is_offence(error) || tracks.is_broken(),
        StreamError::Undefined { 0: cause, .. } => cause.is::<TooLong>(),
        _ => false,
    };
    if broken {
        return ChannelError::Protocol {
            address: dial.authority(),
            reason: error.to_string(),
        };
    }
    lost(dial, error)
}

/// A response that is arriving. Dropped before its end, it stops its stream; the connection lives on.
pub struct ClientReply {
    client: Rc<Shared>,
    _live: Rc<Live>,
    stream: RequestStream<BidiStream, Bytes>,
    track: Arc<Track>,
    tracks: Arc<Tracks>,
    opening: Opening,
    /// The socket's count of receives at the last read that carried bytes of this stream.
    reads: Option<u64>,
    ordinal: u32,
    head: http::Response<()>,
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
        let read = timeout(client.dial.idle_timeout, self.stream.recv_data())
            .await
            .map_err(|_| client.silent("further bytes"))?
            .map_err(|error| explained(&client.dial, &self.tracks, &error))?;
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

    pub(crate) async fn finish(mut self) -> Result<(), ChannelError> {
        while self.next().await?.is_some() {}
        Ok(())
    }
}

//! A connection of any TCP channel, in clear or inside TLS: its bytes on the wire and inside, and the stamps of what is below.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokenlag_probes::Stamp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::Counters;
pub(crate) use crate::stamped::Stamped;

/// A TCP connection, in clear or inside TLS.
#[derive(Debug)]
pub struct Socket {
    layer: Layer,
    resumed: bool,
    early_data: bool,
}

#[derive(Debug)]
enum Layer {
    /// What passes inside is what passes on the wire.
    Clear(Stamped),
    /// The session's state is large; boxed, it does not make every socket as large.
    Tls(Box<Tls>),
}

/// A session, and what passed inside of it.
#[derive(Debug)]
struct Tls {
    stream: TlsStream<Stamped>,
    sent: u64,
    received: u64,
}

impl Socket {
    /// A connection in clear.
    pub(crate) fn clear(stream: Stamped) -> Self {
        Self::over(Layer::Clear(stream), false, false)
    }

    /// A connection inside TLS, after its handshake. `resumed` and `early_data` are what the handshake made use of.
    pub(crate) fn tls(stream: TlsStream<Stamped>, resumed: bool, early_data: bool) -> Self {
        let tls = Tls {
            stream,
            sent: 0,
            received: 0,
        };
        Self::over(Layer::Tls(Box::new(tls)), resumed, early_data)
    }

    fn over(layer: Layer, resumed: bool, early_data: bool) -> Self {
        Self {
            layer,
            resumed,
            early_data,
        }
    }

    #[inline]
    fn wire(&self) -> &Stamped {
        match &self.layer {
            Layer::Clear(stream) => stream,
            Layer::Tls(tls) => tls.stream.get_ref().0,
        }
    }

    /// The TCP stream underneath, for its options.
    pub fn tcp(&self) -> &TcpStream {
        self.wire().tcp()
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self.layer, Layer::Tls(_))
    }

    /// Whether it is known without a read that there is nothing to read.
    pub(crate) fn is_quiet(&self) -> bool {
        match &self.layer {
            Layer::Clear(stream) => stream.is_quiet(),
            // The session may hold what was read of the stream.
            Layer::Tls(_) => false,
        }
    }

    /// When the last read of the TCP stream returned; where the kernel stamps what comes, when it received the last of it.
    pub fn read_at(&self) -> Stamp {
        self.wire().read_at
    }

    /// Before the last write to the TCP stream.
    pub fn written_at(&self) -> Stamp {
        self.wire().written_at
    }

    /// Reads of the TCP stream that returned bytes.
    pub fn reads(&self) -> u64 {
        self.wire().reads
    }

    /// Writes to the TCP stream.
    pub(crate) fn writes(&self) -> u64 {
        self.wire().writes
    }

    /// Books what the connection did below its bytes, where that is watched: it lies idle from now on, or is asked about.
    pub(crate) fn book(&self) {
        self.wire().book(false);
    }

    /// The protocol that the peers agreed on inside TLS (ALPN).
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        match &self.layer {
            Layer::Clear(_) => None,
            Layer::Tls(tls) => tls.stream.get_ref().1.alpn_protocol(),
        }
    }

    /// What the connection did so far.
    pub fn counters(&self) -> Counters {
        let mut counters = Counters {
            connections_opened: 1,
            handshakes_resumed: self.resumed.into(),
            early_data_accepted: self.early_data.into(),
            ..Counters::default()
        };
        self.count_into(&mut counters);
        counters
    }

    /// Brings up to date what changes in `counters` as bytes pass.
    #[inline]
    pub(crate) fn count_into(&self, counters: &mut Counters) {
        let wire = self.wire();
        counters.bytes_sent = wire.bytes_sent;
        counters.bytes_received = wire.bytes_received;
        counters.reads = wire.reads;
        counters.writes = wire.writes;
        (counters.channel_bytes_sent, counters.channel_bytes_received) = match &self.layer {
            // What was peeked at and is still there came on the wire alone.
            Layer::Clear(_) => {
                let received = wire.bytes_received - wire.held_back();
                (wire.bytes_sent, received)
            }
            Layer::Tls(tls) => (tls.sent, tls.received),
        };
    }
}

impl Tls {
    #[inline(never)]
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        self.received += (into.filled().len() - before) as u64;
        Poll::Ready(Ok(()))
    }

    #[inline(never)]
    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, pieces))?;
        self.sent += count as u64;
        Poll::Ready(Ok(count))
    }
}

impl AsyncRead for Socket {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Clear(stream) => Pin::new(stream).poll_read(context, into),
            Layer::Tls(tls) => tls.poll_read(context, into),
        }
    }
}

impl AsyncWrite for Socket {
    #[inline]
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.layer {
            Layer::Clear(stream) => Pin::new(stream).poll_write(context, bytes),
            Layer::Tls(tls) => tls.poll_write(context, &[IoSlice::new(bytes)]),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.layer {
            Layer::Clear(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Layer::Tls(tls) => tls.poll_write(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Clear(stream) => Pin::new(stream).poll_flush(context),
            Layer::Tls(tls) => Pin::new(&mut tls.stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Clear(stream) => Pin::new(stream).poll_shutdown(context),
            Layer::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(context),
        }
    }
}

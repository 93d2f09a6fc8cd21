//! One streamed reply on its way out through a door, on whichever channel.

use std::io;

use bytes::Bytes;
use tokenlag_channel::http::ServerConnection;
use tokenlag_channel::ws::{Text, WebSocket};
use tokenlag_channel::{http2, http3, quic};
use tokenlag_dialect::{SseEvent, SseSplitter};

use crate::http;
use crate::play::{PING, What};
use crate::script::Ending;

/// The most bytes of one event: the terminal one of a long reply repeats all of its text.
const LONGEST_EVENT: usize = 64 << 20;

/// Which channel takes it.
pub(crate) enum Sink<'a> {
    Http1(&'a mut ServerConnection),
    Http2(http2::ReplyWriter),
    Http3(http3::ReplyWriter),
    Quic(quic::ReplyWriter),
    Ws(&'a WebSocket),
}

/// Where a reply goes, with what the next flush sends of it.
pub(crate) struct Out<'a> {
    sink: Sink<'a>,
    /// Where an event is a message or a frame: it leaves whole, with its last piece.
    splitter: SseSplitter,
    bytes: Vec<u8>,
    messages: Vec<Text>,
}

impl<'a> Out<'a> {
    pub(crate) fn new(sink: Sink<'a>) -> Self {
        Self {
            sink,
            splitter: SseSplitter::new(LONGEST_EVENT),
            bytes: Vec::new(),
            messages: Vec::new(),
        }
    }

    /// A whole answer of JSON.
    pub(crate) async fn whole(self, status: u16, body: &[u8]) -> io::Result<()> {
        let fields = vec![field("content-type", "application/json")];
        match self.sink {
            Sink::Http1(connection) => {
                let answer = http::whole(status, body, false);
                connection.write_all(&answer).await.map(drop)
            }
            Sink::Http2(mut writer) => {
                writer.head(status, &fields);
                writer.data(Bytes::copy_from_slice(body));
                writer.finish().await
            }
            Sink::Http3(mut writer) => {
                writer.head(status, &fields);
                writer.data(Bytes::copy_from_slice(body));
                writer.finish().await
            }
            Sink::Quic(mut writer) => {
                writer.head(status, fields, false);
                writer.data(body);
                writer.finish().await
            }
            Sink::Ws(socket) => {
                // An error of the Responses API is an event with the status in it.
                let body = String::from_utf8_lossy(body);
                let rest = body.strip_prefix('{').unwrap_or("}");
                let event = format!(r#"{{"type":"error","status":{status},{rest}"#);
                socket.send([Text::from(event)]).await.map(drop)
            }
        }
    }

    /// Writes a step, and returns when the channel took it.
    pub(crate) async fn write(&mut self, what: &What) -> io::Result<()> {
        match what {
            What::Head(events) => {
                self.head();
                self.events(events)?;
            }
            What::Ping => match &self.sink {
                Sink::Ws(socket) => return socket.ping().await,
                _ => self.events(PING)?,
            },
            What::Events { bytes, .. } => self.events(bytes)?,
            What::End { .. } => return Ok(()),
        }
        self.flush().await
    }

    /// Ends the reply; false where it was cut off, and the connection with it where that carries no other.
    pub(crate) async fn end(mut self, bytes: &[u8], ending: Ending) -> io::Result<bool> {
        let whole = match ending {
            Ending::Complete => true,
            // A WebSocket has no end of a reply but its terminal event.
            Ending::Truncate(_) => !matches!(self.sink, Sink::Ws(_)),
            Ending::Close(_) | Ending::Reset(_) => false,
        };
        if !whole {
            if let Sink::Http3(writer) = self.sink {
                writer.cut_off().await;
            }
            return Ok(false);
        }
        self.events(bytes)?;
        match self.sink {
            Sink::Http1(connection) => {
                self.bytes.extend_from_slice(http::LAST_CHUNK);
                connection.write_all(&self.bytes).await?;
            }
            Sink::Http2(writer) => writer.finish().await?,
            Sink::Http3(writer) => writer.finish().await?,
            Sink::Quic(writer) => writer.finish().await?,
            Sink::Ws(socket) => drop(socket.send(self.messages).await?),
        }
        Ok(true)
    }

    fn head(&mut self) {
        let fields = vec![field("content-type", "text/event-stream")];
        match &mut self.sink {
            Sink::Http1(_) => self.bytes = http::stream_head(false),
            Sink::Http2(writer) => writer.head(200, &fields),
            Sink::Http3(writer) => writer.head(200, &fields),
            Sink::Quic(writer) => {
                let events = writer.wants_events();
                writer.head(200, fields, events);
            }
            Sink::Ws(_) => {}
        }
    }

    /// Adds events, or a piece of them, to what the next flush sends.
    fn events(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.sink {
            Sink::Http1(_) => http::chunk(&mut self.bytes, bytes),
            Sink::Http2(_) | Sink::Http3(_) if bytes.is_empty() => {}
            Sink::Http2(writer) => writer.data(Bytes::copy_from_slice(bytes)),
            Sink::Http3(writer) => writer.data(Bytes::copy_from_slice(bytes)),
            Sink::Quic(writer) if writer.wants_events() => {
                let mut event = |event: SseEvent<'_>| writer.event(event.name, event.data);
                let fed = self.splitter.feed(bytes, &mut event);
                fed.map_err(io::Error::other)?;
            }
            Sink::Quic(writer) => writer.data(bytes),
            Sink::Ws(_) => {
                let messages = &mut self.messages;
                let mut message = |event: SseEvent<'_>| {
                    let data = String::from_utf8_lossy(event.data).into_owned();
                    messages.push(Text::from(data));
                };
                let fed = self.splitter.feed(bytes, &mut message);
                fed.map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::Http1(connection) => {
                connection.write_all(&self.bytes).await?;
                self.bytes.clear();
            }
            Sink::Http2(writer) => drop(writer.flush().await?),
            Sink::Http3(writer) => drop(writer.flush().await?),
            Sink::Quic(writer) => drop(writer.flush().await?),
            Sink::Ws(socket) => drop(socket.send(self.messages.drain(..)).await?),
        }
        Ok(())
    }
}

fn field(name: &str, value: &'static str) -> (String, Bytes) {
    (name.to_owned(), Bytes::from_static(value.as_bytes()))
}

//! A reply's body between upstream and client: in which form it comes, in which it goes on, and by what of it a turn is kept.

use bytes::Bytes;
use serde::Deserialize;
use tokenlag_channel::Chunk;
use tokenlag_channel::http::{Framing as Length, ResponseHead};
use tokenlag_dialect::decoder::EVENT_LIMIT;
use tokenlag_dialect::{Dialect, Framing, SseEvent, SseSplitter, write_event};
use tokenlag_probes::{FailureKind, Outcome};

use crate::inlet::Inlet;
use crate::keeper::Keeper;
use crate::outlet::Outlet;
use crate::relay::Relayed;
use crate::tap::Tap;
use crate::translation::{Translation, streamed_head};

/// The longest reply in one object by which a turn is kept.
const OBJECT_LIMIT: usize = 16 * 1024 * 1024;

/// What is known of a reply before it comes.
#[derive(Default)]
pub(crate) struct Expected<'a> {
    /// The API whose reply it is, as the client knows it.
    pub(crate) dialect: Option<Dialect>,
    /// The turn that it ends.
    pub(crate) turn: Option<&'a mut dyn Keeper>,
    /// The upstream speaks another API.
    pub(crate) translation: Option<Box<Translation>>,
}

/// One body on its way.
pub(crate) struct Body<'a> {
    form: Form,
    /// The client takes events, not their bytes.
    events: bool,
    /// Until it was kept.
    turn: Option<&'a mut dyn Keeper>,
    /// A reply in one object, where a turn is to be kept by it.
    object: Option<Vec<Bytes>>,
    length: usize,
    /// The end was put in.
    ended: bool,
    translated: Option<Outcome>,
}

/// What is done to a body.
enum Form {
    /// Nothing.
    AsItIs,
    /// A stream of events is taken apart.
    Split(SseSplitter),
    /// Events go on as they are, or are written as a stream.
    Events,
    /// A chat becomes a response.
    Translated(Box<Translation>),
}

impl<'a> Body<'a> {
    /// Puts in the head.
    pub(crate) fn start(
        inlet: &Inlet,
        expected: Expected<'a>,
        tap: &mut Tap,
        outlet: &mut impl Outlet,
    ) -> Self {
        let head = &inlet.head;
        let translation = expected
            .translation
            .and_then(|mut it| it.understands(head).then_some(it));
        let dialect = match translation {
            Some(_) => Some(Dialect::Chat),
            None => expected.dialect,
        };
        let stream = dialect.filter(|dialect| is_readable(head, dialect.media_type()));
        let messages = inlet.framing == Framing::Messages;
        if let Some(dialect) = stream {
            let framing = if messages {
                Framing::Messages
            } else {
                dialect.framing()
            };
            tap.understand_framed(dialect, framing);
        }
        let has_events =
            messages || stream.is_some_and(|dialect| dialect.framing() == Framing::Sse);
        let wants_events = outlet.wants_events();
        let translates = translation.is_some();
        let form = match translation {
            Some(translation) => Form::Translated(translation),
            None if messages => Form::Events,
            None if has_events && wants_events => Form::Split(SseSplitter::new(EVENT_LIMIT)),
            None => Form::AsItIs,
        };
        let turn = expected.turn.filter(|_| head.status == 200);
        let object = !translates && turn.is_some() && is_readable(head, "application/json");
        let mut body = Self {
            events: wants_events && !matches!(form, Form::AsItIs),
            form,
            turn: turn.filter(|_| stream.is_some() || object || translates),
            object: object.then(Vec::new),
            length: 0,
            ended: false,
            translated: None,
        };
        body.put_head(head, inlet.length, outlet);
        body
    }

    fn put_head(&mut self, head: &ResponseHead, length: Length, outlet: &mut impl Outlet) {
        if !matches!(self.form, Form::Translated(_)) {
            return outlet.start(head, length, self.events);
        }
        let (head, length) = streamed_head(head);
        outlet.start(&head, length, self.events);
        // What comes before any output needs nothing of the upstream.
        let mut written = Written::new(self.events, outlet);
        if let Form::Translated(translation) = &mut self.form {
            if let Some(turn) = &mut self.turn {
                turn.begins_as(translation.id());
            }
            translation.start(&mut |name, data| written.event(name.as_bytes(), data));
        }
        written.finish();
    }

    /// Puts in a piece. `name` is the name of the event that it is, where it does not tell.
    ///
    /// # Errors
    /// It cannot be passed on in the form in which it should be.
    pub(crate) fn pass(
        &mut self,
        chunk: &Chunk,
        name: Option<&str>,
        outlet: &mut impl Outlet,
    ) -> Result<(), FailureKind> {
        if let Some(turn) = &mut self.turn
            && !matches!(self.form, Form::Translated(_))
        {
            turn.begins(&chunk.bytes);
        }
        match &mut self.form {
            Form::AsItIs => outlet.bytes(&chunk.bytes),
            // An event beyond the limit cannot be turned into a message.
            Form::Split(splitter) => splitter
                .feed(&chunk.bytes, &mut |event| outlet.event(event))
                .map_err(|_| FailureKind::Protocol)?,
            Form::Events => {
                let told;
                let name = match name {
                    Some(name) => name,
                    None => {
                        told = type_of(&chunk.bytes);
                        told.as_deref().unwrap_or_default()
                    }
                };
                let mut written = Written::new(self.events, outlet);
                written.event(name.as_bytes(), &chunk.bytes);
                written.finish();
            }
            Form::Translated(translation) => {
                let mut written = Written::new(self.events, outlet);
                let mut sink = |name: &str, data: &[u8]| written.event(name.as_bytes(), data);
                translation.take(chunk, &mut sink)?;
                written.finish();
            }
        }
        self.length += chunk.bytes.len();
        match &mut self.object {
            Some(pieces) if self.length <= OBJECT_LIMIT => pieces.push(chunk.bytes.clone()),
            Some(_) => self.object = None,
            None => {}
        }
        Ok(())
    }

    /// Puts in the end.
    pub(crate) fn end(&mut self, outlet: &mut impl Outlet) {
        if let Form::Translated(translation) = &mut self.form {
            let mut written = Written::new(self.events, outlet);
            let mut sink = |name: &str, data: &[u8]| written.event(name.as_bytes(), data);
            self.translated = Some(translation.end(&mut sink));
            written.finish();
        }
        self.ended = true;
        outlet.end();
    }

    /// Whether the client has the terminal event, given that everything put in was flushed.
    pub(crate) fn is_told(&self, tap: &Tap) -> bool {
        match &self.form {
            Form::Translated(translation) => translation.ending().is_some(),
            _ => tap.has_ended(),
        }
    }

    /// Keeps the turn, once the client has its end: the terminal event, or the whole of a reply that was not streamed. To be
    /// called after each flush, before anything else is waited for: the client may name the response in its next request.
    pub(crate) fn settle(&mut self, tap: &Tap, status: u16) {
        if !(self.ended || self.is_told(tap)) {
            return;
        }
        let Some(turn) = self.turn.take() else {
            return;
        };
        if self.outcome(tap, status) != Outcome::Complete {
            return;
        }
        match (&self.form, &self.object) {
            (Form::Translated(translation), _) => {
                if let Some(ending) = translation.ending() {
                    turn.keep(ending);
                }
            }
            (_, Some(pieces)) => turn.keep(&pieces.concat()),
            (_, None) => {
                if let Some(ending) = tap.terminal_event() {
                    turn.keep(ending);
                }
            }
        }
    }

    /// How the exchange ended, its body being over, or its client being told all that it has to say.
    pub(crate) fn relayed(&self, tap: &Tap, status: u16) -> Relayed {
        Relayed {
            outcome: self.outcome(tap, status),
            is_told: self.is_told(tap),
        }
    }

    fn outcome(&self, tap: &Tap, status: u16) -> Outcome {
        self.translated.unwrap_or_else(|| tap.relayed(status))
    }
}

/// Events on their way to the client: as such, or as bytes of a stream, of which one flush takes all.
struct Written<'a, O> {
    outlet: &'a mut O,
    bytes: Option<Vec<u8>>,
}

impl<'a, O: Outlet> Written<'a, O> {
    fn new(events: bool, outlet: &'a mut O) -> Self {
        Self {
            outlet,
            bytes: (!events).then(Vec::new),
        }
    }

    fn event(&mut self, name: &[u8], data: &[u8]) {
        match &mut self.bytes {
            Some(bytes) => {
                let name = std::str::from_utf8(name).ok();
                write_event(bytes, name.filter(|name| !name.is_empty()), data);
            }
            None => self.outlet.event(SseEvent {
                name,
                data,
                plain: true,
            }),
        }
    }

    /// Puts in the bytes.
    fn finish(self) {
        if let Some(bytes) = self.bytes.filter(|bytes| !bytes.is_empty()) {
            self.outlet.bytes(&bytes.into());
        }
    }
}

/// The `type` member of an event: its name in a stream.
pub(crate) fn type_of(event: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Typed {
        r#type: String,
    }

    let plain = event.strip_prefix(br#"{"type":""#).and_then(|rest| {
        let end = memchr::memchr2(b'"', b'\\', rest)?;
        let name = (rest[end] == b'"').then_some(&rest[..end])?;
        String::from_utf8(name.to_vec()).ok()
    });
    plain.or_else(|| Some(serde_json::from_slice::<Typed>(event).ok()?.r#type))
}

/// Whether a body is of that media type, and not compressed.
pub(crate) fn is_readable(head: &ResponseHead, media_type: &str) -> bool {
    let plain = head
        .headers
        .get("content-encoding")
        .is_none_or(|coding| coding.eq_ignore_ascii_case("identity"));
    head.is_of_type(media_type) && plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_named_by_its_type() {
        for (event, name) in [
            (
                r#"{"type":"response.created","x":1}"#,
                Some("response.created"),
            ),
            (r#"{ "x":1, "type" : "error" }"#, Some("error")),
            (r#"{"type":"a\u0062"}"#, Some("ab")),
            (r#"{"x":1}"#, None),
            ("[DONE]", None),
        ] {
            assert_eq!(type_of(event.as_bytes()).as_deref(), name, "{event}");
        }
    }
}

//! What a response took, for clients that asked to be told.

use std::time::Duration;

use tokenlag_dialect::SseEvent;
use tokenlag_dialect::responses::Timing;
use tokenlag_probes::Stamp;

/// A response that is being timed, by the stamps that the tap takes too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch {
    /// The client's request was read.
    in_body: Stamp,
    /// Its last byte went upstream.
    asked: Stamp,
    /// The last read of the upstream.
    read: Stamp,
    first: Option<Stamp>,
    last: Stamp,
    deltas: u32,
}

impl Stopwatch {
    pub(super) fn start(in_body: Stamp) -> Self {
        Self {
            in_body,
            asked: in_body,
            read: in_body,
            first: None,
            last: in_body,
            deltas: 0,
        }
    }

    /// The request's last byte went upstream at `at`.
    pub(super) fn asked(&mut self, at: Stamp) {
        self.asked = at;
    }

    /// The upstream was read at `at`; the events that follow came with it.
    pub(super) fn read(&mut self, at: Stamp) {
        self.read = at;
    }

    /// Takes an event of the reply; true where it is the last.
    pub(super) fn event(&mut self, event: &SseEvent<'_>) -> bool {
        match kind(event) {
            "response.completed" | "response.incomplete" | "response.failed" => return true,
            kind if kind.starts_with("response.") && kind.ends_with(".delta") => {
                self.first.get_or_insert(self.read);
                self.last = self.read;
                self.deltas += 1;
            }
            _ => {}
        }
        false
    }

    /// The figures, taken when the last event is about to be written, `now`.
    pub(super) fn timing(&self, now: Stamp) -> Timing {
        let span = |from: Stamp, to: Stamp| Duration::from_nanos(to.since(from).max(0) as u64);
        let engine = span(self.asked, self.read);
        let between = self.first.filter(|_| self.deltas > 1);
        Timing {
            overhead: span(self.in_body, now).saturating_sub(engine),
            engine,
            first_delta: self.first.map(|first| span(self.asked, first)),
            between_deltas: between.map(|first| span(first, self.last) / (self.deltas - 1)),
        }
    }
}

/// The event's type: its name, or, where the server leaves names out, what its JSON says.
fn kind<'a>(event: &'a SseEvent<'_>) -> &'a str {
    #[derive(serde::Deserialize)]
    struct Typed<'a> {
        #[serde(borrow)]
        r#type: Option<&'a str>,
    }

    if !event.name.is_empty() {
        return std::str::from_utf8(event.name).unwrap_or_default();
    }
    let typed: Option<Typed<'a>> = serde_json::from_slice(event.data).ok();
    typed.and_then(|typed| typed.r#type).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn at(ms: u64) -> Stamp {
        Stamp::from_nanos(ms * MS)
    }

    fn named(name: &str) -> SseEvent<'_> {
        SseEvent {
            name: name.as_bytes(),
            data: b"{}",
            plain: true,
        }
    }

    #[test]
    fn engine_and_overhead_add_up() {
        let mut watch = Stopwatch::start(at(10));
        watch.asked(at(12));
        watch.read(at(15));
        assert!(!watch.event(&named("response.created")));
        for (read, name) in [
            (42, "response.output_text.delta"),
            (52, "response.reasoning_summary_text.delta"),
            (62, "response.output_text.delta"),
        ] {
            watch.read(at(read));
            assert!(!watch.event(&named(name)));
        }
        watch.read(at(70));
        assert!(watch.event(&SseEvent {
            data: br#"{"type":"response.completed"}"#,
            ..named("")
        }));
        let ms = Duration::from_millis;
        assert_eq!(
            watch.timing(at(73)),
            Timing {
                overhead: ms(5),
                engine: ms(58),
                first_delta: Some(ms(30)),
                between_deltas: Some(ms(10)),
            }
        );
    }

    #[test]
    fn one_delta_has_no_gap() {
        let mut watch = Stopwatch::start(at(0));
        watch.read(at(5));
        watch.event(&named("response.output_text.delta"));
        let timing = watch.timing(at(6));
        assert_eq!(timing.between_deltas, None);
        assert!(timing.first_delta.is_some());
    }
}

//! How chat completions and completions tell an answer: chunks, a finish, an optional usage chunk, `[DONE]`.

use tokenlag_dialect::chat::{ChatEncoder, DONE};
use tokenlag_dialect::completions::CompletionEncoder;
use tokenlag_dialect::write_event;

use super::answer::{Ending, Script};

/// The script of both APIs, which differ in what a chunk looks like.
pub(super) struct Chunks {
    encoder: Encoder,
    include_usage: bool,
    json: Vec<u8>,
}

/// Writes the chunks of one API.
pub(super) enum Encoder {
    Chat(ChatEncoder),
    Completion(CompletionEncoder),
}

impl Chunks {
    pub(super) fn new(encoder: Encoder, include_usage: bool) -> Self {
        Self {
            encoder,
            include_usage,
            json: Vec::new(),
        }
    }

    fn event(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&Encoder, &mut Vec<u8>)) {
        self.json.clear();
        write(&self.encoder, &mut self.json);
        write_event(out, None, &self.json);
    }
}

impl Script for Chunks {
    fn begin(&mut self, out: &mut Vec<u8>) {
        if let Encoder::Chat(encoder) = &self.encoder {
            self.json.clear();
            encoder.role(&mut self.json);
            write_event(out, None, &self.json);
        }
    }

    fn delta(&mut self, out: &mut Vec<u8>, text: &str) {
        self.event(out, |encoder, json| match encoder {
            Encoder::Chat(encoder) => encoder.content(json, text),
            Encoder::Completion(encoder) => encoder.text(json, text),
        });
    }

    fn end(&mut self, out: &mut Vec<u8>, ending: Ending) {
        let Ending {
            reason,
            usage,
            timings,
            ..
        } = ending;
        // The timings stand in the last chunk, as llama-server has it.
        let on_finish = (!self.include_usage).then_some(&timings);
        self.event(out, |encoder, json| match encoder {
            Encoder::Chat(encoder) => encoder.finish(json, reason, on_finish),
            Encoder::Completion(encoder) => encoder.finish(json, reason, on_finish),
        });
        if self.include_usage {
            self.event(out, |encoder, json| match encoder {
                Encoder::Chat(encoder) => encoder.usage(json, usage, Some(&timings)),
                Encoder::Completion(encoder) => encoder.usage(json, usage, Some(&timings)),
            });
        }
        write_event(out, None, DONE);
    }

    fn whole(&mut self, text: &str, ending: Ending) -> Vec<u8> {
        let Ending {
            reason,
            usage,
            timings,
            ..
        } = ending;
        let (mut out, timings) = (Vec::new(), Some(&timings));
        match &self.encoder {
            Encoder::Chat(encoder) => encoder.whole(&mut out, text, reason, usage, timings),
            Encoder::Completion(encoder) => encoder.whole(&mut out, text, reason, usage, timings),
        }
        out
    }
}

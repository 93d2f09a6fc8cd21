//! The events of a reply in each dialect, framed as SSE, by the project's own encoders.

use tokenlag_dialect::chat::{ChatEncoder, DONE};
use tokenlag_dialect::completions::CompletionEncoder;
use tokenlag_dialect::generation::FinishReason;
use tokenlag_dialect::responses::{Finish, ResponseEncoder, ResponseHead};
use tokenlag_dialect::{Dialect, write_event};
use tokenlag_probes::Usage;

use crate::request::Asked;

/// Writes the events of one reply.
#[derive(Debug)]
pub(crate) enum Reply {
    Responses(Box<ResponseEncoder>),
    Chat(ChatEncoder),
    Completions(CompletionEncoder),
}

/// Not JSON, in any dialect.
const MALFORMED: &[u8] = br#"{"delta":"cut off"#;
/// The moment that replies say they were made at: it means nothing, and two runs should not differ by it.
const CREATED: u64 = 1_750_000_000;

impl Reply {
    /// `None` where the dialect is one that nothing is scripted in.
    pub(crate) fn new(dialect: Dialect, asked: &Asked, number: u64) -> Option<Self> {
        let usage = asked.include_usage;
        let model = &asked.model;
        Some(match dialect {
            Dialect::Responses => {
                let head = ResponseHead {
                    id: format!("resp_scripted_{number}"),
                    model: model.clone(),
                    created_at: CREATED,
                    ..ResponseHead::default()
                };
                Self::Responses(Box::new(ResponseEncoder::new(head)))
            }
            Dialect::Chat => {
                let id = format!("chatcmpl-scripted-{number}");
                Self::Chat(ChatEncoder::new(&id, model, CREATED, usage))
            }
            Dialect::Completions => {
                let id = format!("cmpl-scripted-{number}");
                Self::Completions(CompletionEncoder::new(&id, model, CREATED, usage))
            }
            Dialect::Anthropic | Dialect::Ollama => return None,
        })
    }

    /// What stands before the first delta and is none.
    pub(crate) fn preamble(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Responses(encoder) => {
                encoder.start(&mut |name, data| write_event(out, Some(name), data));
            }
            Self::Chat(encoder) => framed(out, |data| encoder.role(data)),
            Self::Completions(_) => {}
        }
    }

    /// One event that is a delta.
    pub(crate) fn delta(&mut self, text: &str, out: &mut Vec<u8>) {
        match self {
            Self::Responses(encoder) => {
                encoder.delta(text, &mut |name, data| write_event(out, Some(name), data));
            }
            Self::Chat(encoder) => framed(out, |data| encoder.content(data, text)),
            Self::Completions(encoder) => framed(out, |data| encoder.text(data, text)),
        }
    }

    /// An event in a delta's place that cannot be read.
    pub(crate) fn malformed(&self, out: &mut Vec<u8>) {
        let name = match self {
            Self::Responses(_) => Some("response.output_text.delta"),
            Self::Chat(_) | Self::Completions(_) => None,
        };
        write_event(out, name, MALFORMED);
    }

    /// All that follows the last delta, up to the terminal event.
    pub(crate) fn finish(&mut self, usage: Option<Usage>, out: &mut Vec<u8>) {
        match self {
            Self::Responses(encoder) => {
                encoder.finish(Finish::Completed, usage, &mut |name, data| {
                    write_event(out, Some(name), data);
                });
            }
            Self::Chat(encoder) => {
                framed(out, |data| encoder.finish(data, FinishReason::Stop, None));
                if let Some(usage) = usage {
                    framed(out, |data| encoder.usage(data, usage, None));
                }
                write_event(out, None, DONE);
            }
            Self::Completions(encoder) => {
                framed(out, |data| encoder.finish(data, FinishReason::Stop, None));
                if let Some(usage) = usage {
                    framed(out, |data| encoder.usage(data, usage, None));
                }
                write_event(out, None, DONE);
            }
        }
    }

    /// The whole reply to a request that is not streamed.
    pub(crate) fn whole(&mut self, text: &str, usage: Usage) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Responses(encoder) => {
                encoder.delta(text, &mut |_, _| {});
                return encoder.whole(&Finish::Completed, Some(usage));
            }
            Self::Chat(encoder) => encoder.whole(&mut out, text, FinishReason::Stop, usage, None),
            Self::Completions(encoder) => {
                encoder.whole(&mut out, text, FinishReason::Stop, usage, None);
            }
        }
        out
    }
}

fn framed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mut data = Vec::new();
    write(&mut data);
    write_event(out, None, &data);
}

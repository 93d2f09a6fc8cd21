//! One generation from job to text: tokens decoded, stop strings watched, counts and times kept.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::Response;
use tokenlag_dialect::generation::{FinishReason, Generation};
use tokenlag_dialect::usage::Timings;
use tokenlag_probes::{Stamp, Usage};

use super::body::{Body, EventSource};
use super::error::ApiError;
use super::service::Service;
use super::stop::StopFilter;
use super::worker::{JobHandle, Said};
use crate::detokenize::TokenDecoder;
use crate::engine::{Finish, Job, Output};
use crate::sampler::Sampling;

/// What a request asks to be generated.
pub(super) struct Ask {
    pub(super) prompt: Vec<u32>,
    /// The member that the prompt came from, for errors.
    pub(super) param: &'static str,
    pub(super) max_tokens: usize,
    pub(super) generation: Generation,
}

/// How one API tells an answer. Each call appends whole server-sent events.
pub(super) trait Script {
    /// The events before the first text.
    fn begin(&mut self, out: &mut Vec<u8>);
    /// The event of one piece of text, which is not empty.
    fn delta(&mut self, out: &mut Vec<u8>, text: &str);
    /// The events after the last text.
    fn end(&mut self, out: &mut Vec<u8>, ending: Ending);
    /// The reply to a request that is not streamed, as JSON.
    fn whole(&mut self, text: &str, ending: Ending) -> Vec<u8>;
}

/// The temperature of a request that names none, as OpenAI documents it.
const DEFAULT_TEMPERATURE: f32 = 1.0;

/// A generation that has begun.
pub(super) struct Answer {
    job: JobHandle,
    service: Rc<Service>,
    decoder: TokenDecoder,
    stops: StopFilter,
    usage: Usage,
    started: Stamp,
    /// Stamps of the first token and of the last.
    first_and_last: Option<(Stamp, Stamp)>,
    tokens: Vec<u32>,
    finish: Option<Cut>,
    temperature: f32,
}

/// Where an answer ends.
#[derive(Clone, Copy)]
enum Cut {
    /// Where the engine ended it.
    Engine(FinishReason),
    /// At a stop string.
    StopString,
}

/// How an answer ended, and what it took.
pub(super) struct Ending {
    pub(super) reason: FinishReason,
    pub(super) usage: Usage,
    pub(super) timings: Timings,
    /// The generated tokens; `None` where a stop string cut the text short of them.
    pub(super) tokens: Option<Vec<u32>>,
}

/// The engine was shut down while it worked on the answer.
pub(super) struct ShutDown;

impl Answer {
    /// Submits the job and waits until it has a slot. Dropping the future, or the answer, cancels the job.
    pub(super) async fn begin(service: &Rc<Service>, ask: Ask) -> Result<Self, ApiError> {
        let generation = ask.generation;
        let temperature = generation.temperature.unwrap_or(DEFAULT_TEMPERATURE);
        let job = Job {
            prompt: ask.prompt,
            max_tokens: Some(ask.max_tokens),
            sampling: Sampling {
                temperature,
                top_p: generation.top_p.unwrap_or(1.0),
                seed: Some(generation.seed.unwrap_or_else(|| service.random())),
                ignore_eos: generation.ignore_eos,
            },
        };
        let submitted = service.worker.submit(job);
        let mut job = submitted.map_err(|refusal| ApiError::refused(&refusal, ask.param))?;
        let said = poll_fn(|cx| job.poll_said(cx)).await;
        let mut answer = Self {
            job,
            service: service.clone(),
            decoder: TokenDecoder::default(),
            stops: StopFilter::new(generation.stop),
            usage: Usage::default(),
            started: Stamp::default(),
            first_and_last: None,
            tokens: Vec::new(),
            finish: None,
            temperature,
        };
        // A job's first word is that it has started.
        answer.hear(said.ok_or(ShutDown)?, &mut String::new());
        Ok(answer)
    }

    /// The temperature in use.
    pub(super) fn temperature(&self) -> f32 {
        self.temperature
    }

    /// Appends the text of the engine's next word to `text`: often one token's, sometimes none (half a character, what
    /// may become a stop string). `Ready(false)` once the answer has ended.
    pub(super) fn poll_text(
        &mut self,
        cx: &mut Context<'_>,
        text: &mut String,
    ) -> Poll<Result<bool, ShutDown>> {
        if self.finish.is_some() {
            return Poll::Ready(Ok(false));
        }
        self.job.poll_said(cx).map(|said| {
            self.hear(said.ok_or(ShutDown)?, text);
            Ok(true)
        })
    }

    /// How it ended. Call it once [`Answer::poll_text`] said that it has.
    pub(super) fn ending(&mut self) -> Ending {
        let milliseconds = |from: Stamp, to: Stamp| to.since(from).max(0) as f64 / 1e6;
        let (first, last) = self.first_and_last.unwrap_or((self.started, self.started));
        let cached = self.usage.cached_input.unwrap_or(0);
        let tokens = std::mem::take(&mut self.tokens);
        let (reason, tokens) = match self.finish {
            Some(Cut::Engine(reason)) => (reason, Some(tokens)),
            Some(Cut::StopString) | None => (FinishReason::Stop, None),
        };
        Ending {
            reason,
            usage: self.usage,
            timings: Timings {
                cache_n: cached,
                prompt_n: self.usage.input - cached,
                prompt_ms: milliseconds(self.started, first),
                predicted_n: self.usage.output,
                predicted_ms: milliseconds(first, last),
            },
            tokens,
        }
    }

    fn hear(&mut self, said: Said, text: &mut String) {
        match said.what {
            Output::Started {
                prompt_tokens,
                cached_tokens,
            } => {
                self.started = said.at;
                self.usage.input = prompt_tokens as u64;
                self.usage.cached_input = Some(cached_tokens as u64);
            }
            Output::Token(token) => {
                let first = self.first_and_last.map_or(said.at, |(first, _)| first);
                self.first_and_last = Some((first, said.at));
                self.usage.output += 1;
                self.tokens.push(token);
                let piece = self.decoder.push(self.service.model.tokenizer(), token);
                if self.stops.push(piece, text) {
                    self.finish = Some(Cut::StopString);
                    self.job.cancel();
                }
            }
            Output::Finished(finish) => {
                let cut = self.stops.push(self.decoder.finish(), text);
                self.stops.finish(text);
                self.finish = Some(match finish {
                    _ if cut => Cut::StopString,
                    Finish::Stop => Cut::Engine(FinishReason::Stop),
                    Finish::Length => Cut::Engine(FinishReason::Length),
                });
            }
        }
    }
}

/// Replies with an answer, streamed or whole.
pub(super) async fn reply(
    mut answer: Answer,
    mut script: impl Script + 'static,
    stream: bool,
) -> Result<Response<Body>, ApiError> {
    if stream {
        return Ok(Body::events(Telling {
            answer,
            script,
            text: String::new(),
            place: Place::Start,
        }));
    }
    let mut text = String::new();
    while poll_fn(|cx| answer.poll_text(cx, &mut text)).await? {}
    let json = script.whole(&text, answer.ending());
    Ok(Body::bytes("application/json", json))
}

/// An answer being streamed.
struct Telling<S> {
    answer: Answer,
    script: S,
    text: String,
    place: Place,
}

/// How far the stream has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Middle,
    End,
}

/// Bytes after which a frame is handed over although more is ready: a slow reader's backlog goes out in such pieces.
const FRAME_TARGET: usize = 16 << 10;

impl<S: Script> EventSource for Telling<S> {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut out = Vec::new();
        if self.place == Place::Start {
            self.place = Place::Middle;
            self.script.begin(&mut out);
        }
        while self.place == Place::Middle && out.len() < FRAME_TARGET {
            self.text.clear();
            match self.answer.poll_text(cx, &mut self.text) {
                Poll::Pending => break,
                Poll::Ready(Ok(more)) => {
                    if !self.text.is_empty() {
                        self.script.delta(&mut out, &self.text);
                    }
                    if !more {
                        self.script.end(&mut out, self.answer.ending());
                        self.place = Place::End;
                    }
                }
                // The stream breaks off without its terminal event, which tells the client that it is cut short.
                Poll::Ready(Err(ShutDown)) => self.place = Place::End,
            }
        }
        match (out.is_empty(), self.place) {
            (false, _) => Poll::Ready(Some(out.into())),
            (true, Place::End) => Poll::Ready(None),
            (true, _) => Poll::Pending,
        }
    }
}

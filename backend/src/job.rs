//! What goes into an engine and what comes out.

use crate::sampler::Sampling;

/// Limits of an engine; all of them bound memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// Sequences that are decoded at once, each with its own key-value cache.
    pub slots: usize,
    /// Most tokens a job may hold, prompt and answer together; `None` is [`CONTEXT_MAX`](crate::CONTEXT_MAX).
    pub context: Option<usize>,
    /// Jobs that may wait for a slot.
    pub queue: usize,
    /// Prompt tokens that one step computes, at most [`CHUNK_MAX`].
    pub prefill_chunk: usize,
}

/// The most prompt tokens that one step computes.
pub const CHUNK_MAX: usize = 512;

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions {
            slots: 8,
            context: None,
            queue: 256,
            prefill_chunk: 32,
        }
    }
}

/// One generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The prompt's token ids.
    pub prompt: Vec<u32>,
    /// Most tokens to generate; `None` is up to the context limit.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampling: Sampling,
}

/// A job's name within its engine; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub(crate) u64);

/// Why a job was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The prompt leaves no room for an answer.
    #[error(
        "the prompt has {tokens} tokens, but the context ends at {limit}; send less or raise the context limit"
    )]
    ContextExceeded {
        /// Tokens of the prompt.
        tokens: usize,
        /// The engine's limit, prompt and answer together.
        limit: usize,
    },
    /// As many jobs wait as may.
    #[error("the queue of waiting jobs is full; try again later or raise the queue limit")]
    QueueFull,
    /// A prompt needs at least one token.
    #[error("the prompt is empty; send at least one token")]
    EmptyPrompt,
}

/// What a step has to say of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// The job has a slot.
    Started {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Of those, tokens whose keys and values were there already.
        cached_tokens: usize,
    },
    /// One generated token.
    Token(u32),
    /// The last word on this job.
    Finished(Finish),
}

/// Why a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// An end-of-generation token came (it is not given out).
    Stop,
    /// `max_tokens` or the context limit was reached.
    Length,
}

/// Counts for a status page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// Jobs that hold a slot.
    pub active: usize,
    /// Jobs that wait for one.
    pub waiting: usize,
    /// Slots in all.
    pub slots: usize,
    /// Prompt tokens of all jobs started so far.
    pub prompt_tokens: u64,
    /// Of those, tokens taken from a cache.
    pub cached_tokens: u64,
    /// Prompt tokens too far back to matter, which were neither cached nor computed.
    pub skipped_tokens: u64,
    /// Tokens generated so far.
    pub predicted_tokens: u64,
}

//! Many jobs on one model: admission, slots, and one fair step at a time. No clock, no thread, no I/O.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    cache::Cache,
    forward::{Row, Scratch},
    model::Model,
    sampler::{Candidates, Sampler},
    shape::CONTEXT_MAX,
};

pub use crate::job::{CHUNK_MAX, EngineOptions, EngineStatus, Finish, Job, JobId, Output, Refusal};

/// Decodes jobs together; [`Engine::step`] does the work.
pub struct Engine {
    model: Arc<Model>,
    options: EngineOptions,
    waiting: VecDeque<(JobId, Job)>,
    slots: Vec<Slot>,
    /// One for each slot.
    caches: Vec<Cache>,
    scratch: Scratch,
    rows: Vec<Row>,
    candidates: Candidates,
    endings: Vec<u32>,
    /// The slot whose prompt had the last chunk.
    turn: usize,
    /// Counts jobs: their ids, and the age of slots.
    next: u64,
    totals: EngineStatus,
}

#[derive(Default)]
struct Slot {
    running: Option<Running>,
    /// When it was last taken; 0 is never.
    taken: u64,
}

struct Running {
    id: JobId,
    prompt: Vec<u32>,
    sampler: Sampler,
    /// Most tokens to generate.
    most: usize,
    generated: usize,
    /// The token chosen last, which is not computed yet.
    last: u32,
}

impl Engine {
    /// An engine with empty slots. Options of 0 slots or chunks mean 1.
    pub fn new(model: Arc<Model>, options: EngineOptions) -> Engine {
        let slots = options.slots.max(1);
        let prefill_chunk = options.prefill_chunk.clamp(1, CHUNK_MAX);
        let tokenizer = model.tokenizer();
        let vocabulary = model.shape.vocabulary as u32;
        Engine {
            waiting: VecDeque::new(),
            slots: (0..slots).map(|_| Slot::default()).collect(),
            caches: (0..slots)
                .map(|_| Cache::new(&model.shape, prefill_chunk))
                .collect(),
            scratch: Scratch::new(&model.shape, slots + prefill_chunk, slots + 1),
            rows: Vec::with_capacity(slots + prefill_chunk),
            candidates: Vec::with_capacity(model.shape.vocabulary),
            endings: (0..vocabulary)
                .filter(|&id| tokenizer.is_end_of_generation(id))
                .collect(),
            turn: 0,
            next: 1,
            totals: EngineStatus {
                slots,
                ..EngineStatus::default()
            },
            options: EngineOptions {
                slots,
                prefill_chunk,
                ..options
            },
            model,
        }
    }

    /// Queues a job; its tokens come from [`Engine::step`]. Ids outside the vocabulary count as token 0.
    pub fn submit(&mut self, mut job: Job) -> Result<JobId, Refusal> {
        let limit = self.context();
        if job.prompt.is_empty() {
            return Err(Refusal::EmptyPrompt);
        }
        if job.prompt.len() >= limit {
            return Err(Refusal::ContextExceeded {
                tokens: job.prompt.len(),
                limit,
            });
        }
        if self.waiting.len() >= self.options.queue {
            return Err(Refusal::QueueFull);
        }
        for token in &mut job.prompt {
            if *token as usize >= self.model.shape.vocabulary {
                *token = 0;
            }
        }
        let id = JobId(self.next);
        self.next += 1;
        self.waiting.push_back((id, job));
        Ok(id)
    }

    /// Forgets a job, whatever its state; its keys and values stay usable as a prefix.
    pub fn cancel(&mut self, id: JobId) {
        self.waiting.retain(|(waiting, _)| *waiting != id);
        for slot in &mut self.slots {
            slot.running.take_if(|running| running.id == id);
        }
    }

    /// One fair step: one token for every sequence that decodes, and at most one chunk of a prompt (prompts take turns).
    /// Returns whether work remains.
    pub fn step(&mut self, emit: &mut dyn FnMut(JobId, Output)) -> bool {
        self.admit(emit);
        self.plan();
        if !self.rows.is_empty() {
            self.model
                .forward(&self.rows, &mut self.caches, &mut self.scratch);
            self.choose(emit);
        }
        !self.waiting.is_empty() || self.slots.iter().any(|slot| slot.running.is_some())
    }

    /// Counts for a status page.
    pub fn status(&self) -> EngineStatus {
        EngineStatus {
            active: self
                .slots
                .iter()
                .filter(|slot| slot.running.is_some())
                .count(),
            waiting: self.waiting.len(),
            ..self.totals
        }
    }

    fn context(&self) -> usize {
        self.options.context.unwrap_or(CONTEXT_MAX).min(CONTEXT_MAX)
    }

    /// Gives free slots to waiting jobs, first come, first served.
    fn admit(&mut self, emit: &mut dyn FnMut(JobId, Output)) {
        while self.slots.iter().any(|slot| slot.running.is_none()) {
            let Some((id, job)) = self.waiting.pop_front() else {
                return;
            };
            let (slot, reused) = self.place(&job.prompt);
            let first = self.caches[slot].begin(&job.prompt, reused);
            let tokens = job.prompt.len();
            self.totals.prompt_tokens += tokens as u64;
            self.totals.cached_tokens += reused as u64;
            self.totals.skipped_tokens += (first - reused) as u64;
            let most = job
                .max_tokens
                .unwrap_or(usize::MAX)
                .min(self.context() - tokens);
            self.slots[slot] = Slot {
                running: Some(Running {
                    id,
                    prompt: job.prompt,
                    sampler: Sampler::new(job.sampling),
                    most,
                    generated: 0,
                    last: 0,
                }),
                taken: self.next,
            };
            self.next += 1;
            emit(
                id,
                Output::Started {
                    prompt_tokens: tokens,
                    cached_tokens: reused,
                },
            );
        }
    }

    /// The slot for a prompt, and how many of its tokens are there already.
    ///
    /// The longest common prefix wins. But a prompt that shares little with a long history (a system prompt, say) copies
    /// that little to the slot that rested longest, rather than to overwrite the history; so it does if the slot is busy.
    fn place(&mut self, prompt: &[u32]) -> (usize, usize) {
        let free = |slot: usize| self.slots[slot].running.is_none();
        let all = 0..self.slots.len();
        let donor = all
            .clone()
            .map(|slot| (self.caches[slot].reusable(prompt), free(slot), slot))
            .max();
        let (reused, donor_free, donor) = donor.unwrap_or_default();
        let rested = all
            .filter(|&slot| free(slot))
            .min_by_key(|&slot| self.slots[slot].taken)
            .unwrap_or(0);
        if reused == 0 || rested == donor {
            return (rested, reused);
        }
        if donor_free && 2 * reused >= self.caches[donor].len() {
            return (donor, reused);
        }
        if let Ok([target, donor]) = self.caches.get_disjoint_mut([rested, donor]) {
            target.copy(donor, reused);
        }
        (rested, reused)
    }

    /// Fills `rows` with the work of one step, deepest first.
    fn plan(&mut self) {
        self.rows.clear();
        let layers = self.model.shape.layers;
        let mut chunk = None;
        let count = self.slots.len();
        for slot in (1..=count).map(|step| (self.turn + step) % count) {
            let Some(running) = &self.slots[slot].running else {
                continue;
            };
            let cache = &mut self.caches[slot];
            let position = cache.len();
            if position < running.prompt.len() {
                chunk = chunk.or(Some(slot));
            } else {
                cache.push(running.last);
                self.rows.push(Row {
                    slot,
                    token: running.last,
                    position,
                    depth: layers + 1,
                });
            }
        }
        let Some(slot) = chunk else { return };
        self.turn = slot;
        let Some(running) = &self.slots[slot].running else {
            return;
        };
        let cache = &mut self.caches[slot];
        let first = cache.len();
        let last = running.prompt.len().min(first + self.options.prefill_chunk);
        for &token in &running.prompt[first..last] {
            cache.push(token);
        }
        for position in (first..last).rev() {
            let ends = position + 1 == running.prompt.len();
            let depth = if ends {
                layers + 1
            } else {
                cache.depth(position)
            };
            self.rows.push(Row {
                slot,
                token: running.prompt[position],
                position,
                depth,
            });
        }
    }

    /// Chooses a token from each row of logits.
    fn choose(&mut self, emit: &mut dyn FnMut(JobId, Output)) {
        let layers = self.model.shape.layers;
        let asked = self.rows.iter().take_while(|row| row.depth > layers);
        let logits = self
            .scratch
            .logits
            .chunks_exact_mut(self.model.shape.vocabulary);
        for (row, logits) in asked.zip(logits) {
            let place = &mut self.slots[row.slot].running;
            let Some(running) = place else { continue };
            let id = running.id;
            if running.most == 0 {
                *place = None;
                emit(id, Output::Finished(Finish::Length));
                continue;
            }
            let token = running
                .sampler
                .choose(logits, &self.endings, &mut self.candidates);
            if self.endings.contains(&token) {
                *place = None;
                emit(id, Output::Finished(Finish::Stop));
                continue;
            }
            running.last = token;
            running.generated += 1;
            self.totals.predicted_tokens += 1;
            let done = running.generated == running.most;
            emit(id, Output::Token(token));
            if done {
                self.slots[row.slot].running = None;
                emit(id, Output::Finished(Finish::Length));
            }
        }
    }
}

//! What every request shares: the model, the engine's task, what is remembered, what is counted.

use std::cell::RefCell;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tokenlag_probes::clock::wall_clock;

use super::memory::Memory;
use super::metrics::Requests;
use super::worker::Worker;
use crate::engine::Engine;
use crate::model::Model;

/// The state of one server. It lives on one thread.
pub(crate) struct Service {
    pub(super) model: Arc<Model>,
    pub(super) worker: Rc<Worker>,
    pub(super) memory: RefCell<Memory>,
    pub(super) requests: RefCell<Requests>,
    pub(super) max_tokens: usize,
    pub(super) started_at: u64,
    random: RefCell<ChaCha8Rng>,
}

impl Service {
    /// `max_tokens` is the limit of a chat or a response that names none; `memory` what is kept of responses; `pace` the most
    /// tokens a second of each sequence.
    pub(crate) fn new(
        model: Arc<Model>,
        engine: Engine,
        memory: tokenlag_dialect::Limits,
        max_tokens: usize,
        pace: Option<NonZeroU32>,
    ) -> Rc<Self> {
        let now = wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
        Rc::new(Self {
            memory: RefCell::new(Memory::new(model.clone(), memory)),
            model,
            worker: Worker::new(engine, pace),
            requests: RefCell::default(),
            max_tokens,
            started_at: now.as_secs(),
            // Ids and the seeds of requests that name none: unlike those of the last start, and no secrets.
            random: RefCell::new(ChaCha8Rng::seed_from_u64(now.as_nanos() as u64)),
        })
    }

    /// Computes for ever.
    pub(crate) async fn run_engine(&self) {
        self.worker.run().await;
    }

    /// 64 random bits.
    pub(super) fn random(&self) -> u64 {
        self.random.borrow_mut().next_u64()
    }

    /// A new id: the prefix and 32 hexadecimal digits.
    pub(super) fn new_id(&self, prefix: &str) -> String {
        format!("{prefix}{:016x}{:016x}", self.random(), self.random())
    }
}

/// Now, in Unix seconds: what `created` says.
pub(super) fn unix_seconds() -> u64 {
    let now: SystemTime = wall_clock();
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

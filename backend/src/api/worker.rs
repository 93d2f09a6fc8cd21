//! The engine as a cooperative task: one step at a time, and a channel to each job.

use std::cell::RefCell;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokenlag_probes::{Clock, MonoClock, Stamp};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::pace::Pace;
use crate::engine::{Engine, EngineStatus, Job, JobId, Output, Refusal};

/// The engine and those who wait for its words. Shared by the tasks of one thread.
pub(super) struct Worker {
    engine: RefCell<Engine>,
    listeners: RefCell<HashMap<JobId, UnboundedSender<Said>>>,
    submitted: Notify,
    tokens_per_second: Option<NonZeroU32>,
}

/// What a step came to.
struct Stepped {
    /// Work remains.
    busy: bool,
    /// It generated tokens.
    generated: bool,
}

/// Something the engine said of a job, and when the step that said it had ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    pub(super) at: Stamp,
    pub(super) what: Output,
}

impl Worker {
    /// With a limit, each sequence has so many tokens a second at most.
    pub(super) fn new(engine: Engine, tokens_per_second: Option<NonZeroU32>) -> Rc<Self> {
        Rc::new(Self {
            engine: RefCell::new(engine),
            listeners: RefCell::default(),
            submitted: Notify::new(),
            tokens_per_second,
        })
    }

    /// Computes as long as there is work, and never returns. Between two steps every task that the step woke is run,
    /// and so writes its token: [`tokio::task::yield_now`] comes back only after the other tasks and the sockets had
    /// their turn.
    pub(super) async fn run(&self) {
        let mut pace = self.tokens_per_second.map(Pace::new);
        loop {
            let Stepped { busy, generated } = self.step();
            if let Some(pace) = &mut pace {
                pace.wait(generated).await;
            }
            if busy {
                tokio::task::yield_now().await;
            } else {
                self.submitted.notified().await;
            }
        }
    }

    /// Queues a job. What the engine says of it waits in its handle; that is bounded by the job's own limit of tokens.
    pub(super) fn submit(self: &Rc<Self>, job: Job) -> Result<JobHandle, Refusal> {
        let id = self.engine.borrow_mut().submit(job)?;
        let (sender, said) = unbounded_channel();
        self.listeners.borrow_mut().insert(id, sender);
        self.submitted.notify_one();
        Ok(JobHandle {
            id,
            said,
            worker: self.clone(),
        })
    }

    pub(super) fn status(&self) -> EngineStatus {
        self.engine.borrow().status()
    }

    /// One step of the engine.
    fn step(&self) -> Stepped {
        let mut said = Vec::new();
        let busy = self
            .engine
            .borrow_mut()
            .step(&mut |id, what| said.push((id, what)));
        let at = MonoClock.now();
        let generated = (said.iter()).any(|(_, what)| matches!(what, Output::Token(_)));
        let mut listeners = self.listeners.borrow_mut();
        for (id, what) in said {
            // A send fails only where the handle is gone, and then its job was cancelled.
            if let Some(listener) = listeners.get(&id) {
                let _ = listener.send(Said { at, what });
            }
            if matches!(what, Output::Finished(_)) {
                listeners.remove(&id);
            }
        }
        Stepped { busy, generated }
    }
}

/// A job that was submitted. Dropping it cancels the job, whether it waits, reads its prompt or generates.
pub(super) struct JobHandle {
    id: JobId,
    said: UnboundedReceiver<Said>,
    worker: Rc<Worker>,
}

impl JobHandle {
    /// The engine's next word on the job; `None` after the last.
    pub(super) fn poll_said(&mut self, cx: &mut Context<'_>) -> Poll<Option<Said>> {
        self.said.poll_recv(cx)
    }

    /// Ends the job; nothing more is heard of it.
    pub(super) fn cancel(&mut self) {
        let known = self.worker.listeners.borrow_mut().remove(&self.id);
        if known.is_some() {
            self.worker.engine.borrow_mut().cancel(self.id);
        }
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        self.cancel();
    }
}

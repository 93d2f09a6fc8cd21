//! A thread's answers to whoever asks what it carried. Tokens wait for none of them longer than for one another.

use std::rc::Rc;
use std::time::Duration;

use tokenlag_probes::{Clock, MonoClock};
use tokio::task::yield_now;

use crate::carried::Asked;
use crate::worker::Worker;

/// How often the thread looks for news of its sockets, and sees to what it finds, before it answers. Once is enough for whom a
/// socket wakes; QUIC's news pass through the tasks of its endpoint and its connection first.
const ROUNDS: usize = 4;

/// How long the thread works on what came before a question, but for the turn that goes on then: a third of what is waited for
/// its answer ([`PATIENCE`](crate::carried::PATIENCE)), since others may have asked before.
const LONGEST: Duration = Duration::from_millis(80);

/// Answers until nobody can ask any more.
///
/// All that came before a question is worked on first: who asks between turns is told of the one that is over, and of clients
/// that have left since. And idle connections book what they did below their bytes. A thread whose turns are long tells in time
/// what it knows by then.
pub(crate) async fn answer(worker: Rc<Worker>, mut asked: Asked) {
    while let Some(tell) = asked.recv().await {
        let until = MonoClock.now() + LONGEST;
        for _ in 0..ROUNDS {
            yield_now().await;
            if MonoClock.now() >= until {
                break;
            }
        }
        worker.pool.look(until).await;
        // Who does not wait any more need not be told.
        let _ = tell.send(worker.carried());
    }
}

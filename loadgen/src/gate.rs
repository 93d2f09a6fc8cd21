//! What takes long is done by one session at a time, and each time what lies there for the others is read before.

use tokio::sync::Mutex;
use tokio::task::yield_now;

/// Where sessions of a cell queue before work that no moment waits for, such as the making of a next turn's request. A
/// thousand of them that end their turns together would else keep the thread from reading for as long as that takes all of
/// them, and stamps are taken when reads return.
#[derive(Debug, Default)]
pub(crate) struct Gate(Mutex<()>);

impl Gate {
    /// Returns once those who came before have passed, and once more has been looked for what there is to read.
    pub(crate) async fn pass(&self) {
        let _place = self.0.lock().await;
        yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::task::{JoinSet, LocalSet};

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn they_pass_in_order_and_others_have_their_turn_in_between() {
        const SESSIONS: usize = 20;
        let (gate, log) = (Rc::new(Gate::default()), Rc::new(RefCell::new(Vec::new())));
        let run = async {
            let mut sessions = JoinSet::new();
            for session in 0..SESSIONS {
                let (gate, log) = (gate.clone(), log.clone());
                sessions.spawn_local(async move {
                    gate.pass().await;
                    log.borrow_mut().push(Some(session));
                });
            }
            let log = log.clone();
            sessions.spawn_local(async move {
                // Whoever has something to read in each round.
                for _ in 0..2 * SESSIONS {
                    log.borrow_mut().push(None);
                    yield_now().await;
                }
            });
            while sessions.join_next().await.is_some() {}
        };
        LocalSet::new().run_until(run).await;
        let log = log.take();
        let passed: Vec<usize> = log.iter().copied().flatten().collect();
        assert_eq!(passed, (0..SESSIONS).collect::<Vec<_>>());
        let last = log.iter().rposition(Option::is_some).unwrap();
        let reads = log[..last].iter().filter(|it| it.is_none()).count();
        assert!(reads >= SESSIONS - 1, "{log:?}");
    }
}

//! What takes long is done by one session at a time, and each time what lies there for the others is read before.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

use tokio::task::yield_now;

/// Where sessions of a cell queue before work that no moment waits for, such as the making of a next turn's request. A
/// thousand of them that end their turns together would else keep the thread from reading for as long as that takes all of
/// them, and stamps are taken when reads return.
#[derive(Debug, Default)]
pub(crate) struct Gate(RefCell<Line>);

/// Those who queue, in order. Every request passes here: a list costs a tenth of a lock.
#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    /// The number of the first.
    first: u64,
}

#[derive(Debug)]
enum Waiting {
    /// Who is to be woken, once that is known.
    Here(Option<Waker>),
    /// Given up.
    Left,
}

/// A place in the line. Dropped, it leaves it.
struct Place<'a> {
    gate: &'a Gate,
    number: u64,
}

impl Gate {
    /// Returns once those who came before have passed, and once more has been looked for what there is to read.
    pub(crate) async fn pass(&self) {
        let place = self.queue();
        poll_fn(|context| match place.is_first(context.waker()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        yield_now().await;
    }

    fn queue(&self) -> Place<'_> {
        let mut line = self.0.borrow_mut();
        let number = line.first + line.waiting.len() as u64;
        line.waiting.push_back(Waiting::Here(None));
        Place { gate: self, number }
    }
}

impl Place<'_> {
    /// Whether those before have passed; where they have not, `waker` is woken as they do.
    fn is_first(&self, waker: &Waker) -> bool {
        let mut line = self.gate.0.borrow_mut();
        let ahead = line.ahead_of(self.number);
        if ahead > 0 {
            line.waiting[ahead] = Waiting::Here(Some(waker.clone()));
        }
        ahead == 0
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let next = self.gate.0.borrow_mut().leave(self.number);
        if let Some(next) = next {
            next.wake();
        }
    }
}

impl Line {
    fn ahead_of(&self, number: u64) -> usize {
        (number - self.first) as usize
    }

    /// Takes one out of the line; gives who has become the first by that.
    fn leave(&mut self, number: u64) -> Option<Waker> {
        let ahead = self.ahead_of(number);
        self.waiting[ahead] = Waiting::Left;
        if ahead > 0 {
            return None;
        }
        while let Some(Waiting::Left) = self.waiting.front() {
            self.waiting.pop_front();
            self.first += 1;
        }
        match self.waiting.front_mut() {
            Some(Waiting::Here(waker)) => waker.take(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::Context;

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

    #[test]
    fn whoever_gives_up_keeps_nobody_from_passing() {
        let gate = Gate::default();
        let mut nobody = Context::from_waker(Waker::noop());
        let first = gate.queue();
        let middle = gate.queue();
        let mut last = pin!(gate.pass());
        assert!(last.as_mut().poll(&mut nobody).is_pending());
        assert!(first.is_first(Waker::noop()) && !middle.is_first(Waker::noop()));
        drop(middle);
        assert_eq!(
            gate.0.borrow().waiting.len(),
            3,
            "the line does not close up behind"
        );
        drop(first);
        assert_eq!(
            gate.0.borrow().waiting.len(),
            1,
            "but before the next who waits"
        );
        // Once more it is looked what there is to read.
        assert!(last.as_mut().poll(&mut nobody).is_pending());
        assert!(last.as_mut().poll(&mut nobody).is_ready());
        assert!(gate.0.borrow().waiting.is_empty());
        assert_eq!(gate.queue().number, 3);
    }
}

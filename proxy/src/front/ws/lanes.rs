//! The lanes of one connection: which of its exchanges may run, and in which order.
//!
//! Exchanges of one lane run one after the other, those of different lanes side by side, as many as the connection may
//! have. Whoever waits, waits in the order in which it came.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;

use tokio::sync::oneshot;

use super::limits::{ACTIVE, NAMED_LANES};

/// A lane's name; `None` is the default lane.
pub(super) type Lane = Option<Rc<str>>;

/// The lanes of one connection. Clones are the same ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Lanes(Rc<RefCell<State>>);

#[derive(Debug, Default)]
struct State {
    /// Every name that was ever used: a name stays taken for the connection's life.
    named: HashSet<Rc<str>>,
    /// Lanes with an exchange that runs: one each.
    busy: HashSet<Lane>,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    lane: Lane,
    start: oneshot::Sender<Turn>,
}

/// The lane would be one too many.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooManyLanes;

/// An exchange's place in its lane.
#[derive(Debug)]
pub(super) enum Place {
    /// It may run.
    First(Turn),
    /// It may run when others have ended.
    Behind(oneshot::Receiver<Turn>),
}

/// The right to run. Dropped, it goes on to the next.
#[derive(Debug)]
pub(super) struct Turn {
    lanes: Lanes,
    pub(super) lane: Lane,
}

impl Lanes {
    /// Takes a place at the end of the lane of that name.
    pub(super) fn enter(&self, name: Option<&str>) -> Result<Place, TooManyLanes> {
        let mut state = self.0.borrow_mut();
        let lane = state.lane(name)?;
        if state.may_run(&lane) {
            state.busy.insert(lane.clone());
            drop(state);
            return Ok(Place::First(Turn {
                lanes: self.clone(),
                lane,
            }));
        }
        let (start, started) = oneshot::channel();
        state.waiting.push_back(Waiting { lane, start });
        Ok(Place::Behind(started))
    }

    /// Exchanges that wait.
    pub(super) fn waiting(&self) -> usize {
        self.0.borrow().waiting.len()
    }

    /// Ends the exchange of a lane and starts the first that can run now: one lane and one place became free, so there is
    /// one at most.
    fn leave(&self, lane: &Lane) {
        self.0.borrow_mut().busy.remove(lane);
        let next = self.0.borrow_mut().take_next();
        if let Some(Waiting { lane, start }) = next {
            let turn = Turn {
                lanes: self.clone(),
                lane,
            };
            // One that does not wait any more passes its turn on as it is dropped.
            drop(start.send(turn));
        }
    }
}

impl State {
    fn lane(&mut self, name: Option<&str>) -> Result<Lane, TooManyLanes> {
        let Some(name) = name else {
            return Ok(None);
        };
        if let Some(known) = self.named.get(name) {
            return Ok(Some(Rc::clone(known)));
        }
        if self.named.len() == NAMED_LANES {
            return Err(TooManyLanes);
        }
        let lane: Rc<str> = name.into();
        self.named.insert(Rc::clone(&lane));
        Ok(Some(lane))
    }

    fn may_run(&self, lane: &Lane) -> bool {
        self.busy.len() < ACTIVE && !self.busy.contains(lane)
    }

    fn take_next(&mut self) -> Option<Waiting> {
        let place = self.waiting.iter().position(|w| self.may_run(&w.lane))?;
        let next = self.waiting.remove(place)?;
        self.busy.insert(next.lane.clone());
        Some(next)
    }
}

impl Place {
    /// Waits for the turn; `None` where the connection is gone.
    pub(super) async fn turn(self) -> Option<Turn> {
        match self {
            Self::First(turn) => Some(turn),
            Self::Behind(started) => started.await.ok(),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.lanes.leave(&self.lane);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(place: Result<Place, TooManyLanes>) -> Turn {
        match place {
            Ok(Place::First(turn)) => turn,
            other => panic!("{other:?}"),
        }
    }

    fn behind(place: Result<Place, TooManyLanes>) -> oneshot::Receiver<Turn> {
        match place {
            Ok(Place::Behind(started)) => started,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_lane_is_a_queue_and_others_do_not_notice() {
        let lanes = Lanes::default();
        let one = first(lanes.enter(Some("a")));
        let mut two = behind(lanes.enter(Some("a")));
        let mut three = behind(lanes.enter(Some("a")));
        let other = first(lanes.enter(Some("b")));
        let default = first(lanes.enter(None));
        assert_eq!(lanes.waiting(), 2);
        drop((other, default));
        assert!(two.try_recv().is_err());
        drop(one);
        let turn = two.try_recv().unwrap();
        assert!(three.try_recv().is_err());
        drop(turn);
        assert_eq!(three.try_recv().unwrap().lane.as_deref(), Some("a"));
    }

    #[test]
    fn the_seventeenth_waits_for_any_place_and_the_oldest_gets_it() {
        let lanes = Lanes::default();
        let name = |number: usize| format!("lane{number}");
        let mut turns: Vec<_> = (0..ACTIVE)
            .map(|number| first(lanes.enter(Some(&name(number)))))
            .collect();
        let mut same = behind(lanes.enter(Some(&name(0))));
        let mut older = behind(lanes.enter(Some("x")));
        let mut newer = behind(lanes.enter(Some("y")));
        // Lane 0 is still busy: the place goes to the next that can use it.
        drop(turns.pop());
        let _x = older.try_recv().unwrap();
        assert!(newer.try_recv().is_err() && same.try_recv().is_err());
        drop(turns.remove(0));
        let _same = same.try_recv().unwrap();
        assert!(newer.try_recv().is_err());
        drop(turns.pop());
        assert!(newer.try_recv().is_ok());
    }

    #[test]
    fn one_that_waits_no_more_is_passed_over() {
        let lanes = Lanes::default();
        let one = first(lanes.enter(None));
        drop(behind(lanes.enter(None)));
        let mut three = behind(lanes.enter(None));
        drop(one);
        assert!(three.try_recv().is_ok());
        // Its turn went by unused, and is free again.
        drop(three);
        assert!(matches!(lanes.enter(None), Ok(Place::First(_))));
        assert_eq!(lanes.waiting(), 0);
    }

    #[test]
    fn names_are_counted_for_the_connections_life() {
        let lanes = Lanes::default();
        for number in 0..NAMED_LANES {
            drop(first(lanes.enter(Some(&number.to_string()))));
        }
        assert_eq!(lanes.enter(Some("one more")).unwrap_err(), TooManyLanes);
        assert!(lanes.enter(Some("7")).is_ok());
        assert!(lanes.enter(None).is_ok());
    }
}

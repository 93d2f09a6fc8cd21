//! Which session has which lane of which connection.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use super::line::{Live, Made};
use super::{NAMES, SIDE_BY_SIDE};
use crate::kept::Kept;
use crate::{ChannelError, Counters, Dial};

/// All that share a way to one other end.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dial: Dial,
    /// As many as the sessions at a time have needed.
    groups: RefCell<Vec<Rc<Group>>>,
    /// All connections, those among them that are being left, on which exchanges may be under way still.
    lives: RefCell<Vec<Weak<Live>>>,
    /// Counters of the connections that are gone.
    past: Rc<Cell<Counters>>,
}

/// Sessions that share a connection. When it is lost, they share the next.
#[derive(Debug, Default)]
struct Group {
    live: Kept<Live>,
    /// Lanes that have a session, one bit each.
    taken: Cell<u32>,
}

/// A session's lane. Dropped, it is free for another session.
#[derive(Debug)]
pub(super) struct Seat {
    shared: Rc<Shared>,
    group: Rc<Group>,
    pub(super) lane: u8,
}

impl Shared {
    pub(super) fn new(dial: Dial) -> Rc<Self> {
        Rc::new(Self {
            dial,
            groups: RefCell::default(),
            lives: RefCell::default(),
            past: Rc::default(),
        })
    }

    /// A lane that no session has, and in which nothing is under way.
    pub(super) fn seat(self: &Rc<Self>) -> Seat {
        let mut groups = self.groups.borrow_mut();
        let found = (groups.iter()).find_map(|group| Some((Rc::clone(group), group.free()?)));
        let (group, lane) = found.unwrap_or_else(|| {
            let group = Rc::<Group>::default();
            groups.push(Rc::clone(&group));
            (group, 0)
        });
        group.taken.set(group.taken.get() | 1 << lane);
        Seat {
            shared: Rc::clone(self),
            group,
            lane,
        }
    }

    #[cfg(test)]
    pub(super) fn groups(&self) -> usize {
        self.groups.borrow().len()
    }

    /// Books what the connections did below their bytes.
    pub(super) fn book(&self) {
        let lives = self.lives.borrow();
        let lives = lives.iter().filter_map(Weak::upgrade);
        lives.for_each(|live| live.line.book());
    }

    pub(super) fn counters(&self) -> Counters {
        let lives = self.lives.borrow();
        let lives = lives.iter().filter_map(Weak::upgrade);
        lives.fold(self.past.get(), |sum, live| sum + live.line.counters())
    }

    /// Closes all connections.
    pub(super) async fn close(&self) {
        let groups = self.groups.take();
        for group in groups {
            if let Some(live) = group.live.close().await {
                live.close().await;
            }
        }
    }
}

impl Group {
    /// The first lane that can be had, where the connection has room.
    fn free(&self) -> Option<u8> {
        // Where nothing is asked on it any more, the next session makes another.
        let live = self.live.peek().filter(|live| live.is_good());
        let busy = live.map_or(0, |live| live.line.busy());
        let taken = self.taken.get() | busy;
        // As many as there are names can be taken only where there is no room any more.
        let first = taken.trailing_ones();
        let has_room = taken.count_ones() < SIDE_BY_SIDE && (first as usize) < NAMES;
        has_room.then_some(first as u8)
    }
}

impl Seat {
    /// The connection; where it was just made, also how.
    pub(super) async fn live(&self) -> Result<(Rc<Live>, Option<Made>), ChannelError> {
        let make = async || Live::dial(&self.shared.dial, &self.shared.past).await;
        let (live, made) = self.group.live.get(Live::is_good, make).await?;
        if made.is_some() {
            let mut lives = self.shared.lives.borrow_mut();
            lives.retain(|live| live.strong_count() > 0);
            lives.push(Rc::downgrade(&live));
        }
        Ok((live, made))
    }

    /// The server works on a response there that nobody takes.
    pub(super) fn is_given_up(&self) -> bool {
        let live = self.group.live.peek();
        live.is_some_and(|live| live.is_good() && live.line.lane(self.lane).is_given_up())
    }

    pub(super) fn dial(&self) -> &Dial {
        &self.shared.dial
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let taken = &self.group.taken;
        taken.set(taken.get() & !(1 << self.lane));
    }
}

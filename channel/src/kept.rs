//! The one connection that a client keeps for its next exchanges.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::sync::Mutex;

/// At most one connection that takes new exchanges. Exchanges that begin while it is made wait for it instead of making
/// another.
#[derive(Debug)]
pub(crate) struct Kept<L> {
    live: RefCell<Option<Rc<L>>>,
    making: Mutex<()>,
}

impl<L> Default for Kept<L> {
    fn default() -> Self {
        Self {
            live: RefCell::default(),
            making: Mutex::default(),
        }
    }
}

impl<L> Kept<L> {
    /// The connection, where it is `good` still, or else a new one and what its making tells.
    ///
    /// # Errors
    /// None could be made.
    pub(crate) async fn get<M, E>(
        &self,
        good: impl Fn(&L) -> bool,
        make: impl AsyncFnOnce() -> Result<(L, M), E>,
    ) -> Result<(Rc<L>, Option<M>), E> {
        if let Some(live) = self.good(&good) {
            return Ok((live, None));
        }
        let _making = self.making.lock().await;
        if let Some(live) = self.good(&good) {
            return Ok((live, None));
        }
        self.take();
        let (live, made) = make().await?;
        let live = Rc::new(live);
        *self.live.borrow_mut() = Some(Rc::clone(&live));
        Ok((live, Some(made)))
    }

    fn good(&self, good: impl Fn(&L) -> bool) -> Option<Rc<L>> {
        // Not while it is borrowed: whoever looks may drive the connection.
        let live = self.peek()?;
        good(&live).then_some(live)
    }

    /// The connection, good or not, where there is one.
    pub(crate) fn peek(&self) -> Option<Rc<L>> {
        self.live.borrow().clone()
    }

    /// Keeps it no longer.
    pub(crate) fn take(&self) -> Option<Rc<L>> {
        self.live.borrow_mut().take()
    }

    /// The same once nobody makes one any more.
    pub(crate) async fn close(&self) -> Option<Rc<L>> {
        let _making = self.making.lock().await;
        self.take()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn exchanges_share_one_connection_and_wait_while_it_is_made() {
        let kept = Kept::<u32>::default();
        let made = Cell::new(0);
        let get = async || {
            let make = async || {
                tokio::task::yield_now().await;
                made.set(made.get() + 1);
                Ok::<_, ()>((made.get(), "made"))
            };
            kept.get(|&live| live == made.get(), make).await.unwrap()
        };
        let (first, second) = tokio::join!(get(), get());
        assert_eq!((*first.0, first.1), (1, Some("made")));
        assert_eq!((*second.0, second.1), (1, None));
        assert!(Rc::ptr_eq(&get().await.0, &first.0));
        // It is good no longer.
        made.set(2);
        assert_eq!((*get().await.0, made.get()), (3, 3));
        assert_eq!(kept.close().await.as_deref(), Some(&3));
        assert!(kept.peek().is_none());
    }

    #[tokio::test]
    async fn one_that_cannot_be_made_is_tried_again() {
        let kept = Kept::<u32>::default();
        let failed = kept.get(|_| true, async || Err::<(u32, ()), _>("no")).await;
        assert_eq!(failed.unwrap_err(), "no");
        let made = kept.get(|_| true, async || Ok::<_, ()>((1, ()))).await;
        assert_eq!(*made.unwrap().0, 1);
    }
}

//! The one connection that a client keeps for its next exchanges.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Mutex;

use crate::ChannelError;

/// At most one connection that takes new exchanges. Exchanges that begin while it is made wait for it instead of making
/// another, and share its failure: one that cannot be made costs each of them the time of one attempt.
#[derive(Debug)]
pub(crate) struct Kept<L> {
    live: RefCell<Option<Rc<L>>>,
    making: Mutex<()>,
    /// How often it was tried to make one, and what came of the last time where none was made.
    attempts: Cell<u64>,
    failure: RefCell<Option<ChannelError>>,
}

impl<L> Default for Kept<L> {
    fn default() -> Self {
        Self {
            live: RefCell::default(),
            making: Mutex::default(),
            attempts: Cell::default(),
            failure: RefCell::default(),
        }
    }
}

impl<L> Kept<L> {
    /// The connection, where it is `good` still, or else a new one and what its making tells.
    ///
    /// # Errors
    /// None could be made, by this exchange or by the one that it waited for.
    pub(crate) async fn get<M>(
        &self,
        good: impl Fn(&L) -> bool,
        make: impl AsyncFnOnce() -> Result<(L, M), ChannelError>,
    ) -> Result<(Rc<L>, Option<M>), ChannelError> {
        if let Some(live) = self.good(&good) {
            return Ok((live, None));
        }
        let attempts = self.attempts.get();
        let _making = self.making.lock().await;
        if let Some(live) = self.good(&good) {
            return Ok((live, None));
        }
        let waited = self.attempts.get() > attempts;
        if let Some(failure) = self.failure.borrow().as_ref().filter(|_| waited) {
            return Err(failure.clone());
        }
        self.take();
        let made = make().await;
        self.attempts.set(self.attempts.get() + 1);
        *self.failure.borrow_mut() = made.as_ref().err().cloned();
        let (live, made) = made?;
        let live = Rc::new(live);
        *self.live.borrow_mut() = Some(Rc::clone(&live));
        Ok((live, Some(made)))
    }

    /// Whether an exchange that begins now has to make a connection: none is `good`, and nobody makes one.
    pub(crate) fn is_missing(&self, good: impl Fn(&L) -> bool) -> bool {
        self.making.try_lock().is_ok() && self.good(good).is_none()
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
    use super::*;

    fn refused() -> ChannelError {
        ChannelError::Request("no".to_owned())
    }

    #[tokio::test]
    async fn exchanges_share_one_connection_and_wait_while_it_is_made() {
        let kept = Kept::<u32>::default();
        let made = Cell::new(0);
        let get = async || {
            let make = async || {
                tokio::task::yield_now().await;
                made.set(made.get() + 1);
                Ok((made.get(), "made"))
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
    async fn those_who_wait_share_a_failure_and_the_next_one_tries_again() {
        let kept = Kept::<u32>::default();
        let tried = Cell::new(0);
        let get = async || {
            let make = async || {
                tried.set(tried.get() + 1);
                tokio::task::yield_now().await;
                Err::<(u32, ()), _>(refused())
            };
            kept.get(|_| true, make).await.unwrap_err().to_string()
        };
        let (first, second, third) = tokio::join!(get(), get(), get());
        assert_eq!(first, refused().to_string());
        assert_eq!((&second, &third), (&first, &first));
        assert_eq!(tried.get(), 1);
        get().await;
        assert_eq!(tried.get(), 2);
        let made = kept.get(|_| true, async || Ok((1, ()))).await;
        assert_eq!(*made.unwrap().0, 1);
    }
}

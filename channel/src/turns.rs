//! Turns for handshakes over QUIC: a thousand that begin together would be each other's delay.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::{ChannelError, Dial};

/// Handshakes over QUIC that are under way at a time. A thousand that begin together take turns on the two threads anyway: each
/// then seems to be a second away from the other end, their datagrams find no room there, and what is lost is sent again
/// seconds later. So many find room at a system's usual settings.
const HANDSHAKES: usize = 64;

/// How long one may wait for its turn: time for a few thousand over the longest links, and an end where no server answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who may make a handshake. Clones share the turns.
#[derive(Clone, Debug)]
pub(crate) struct Turns(Arc<Semaphore>);

/// The right to make one handshake, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(HANDSHAKES)))
    }
}

impl Turns {
    /// Waits for a turn to make a handshake with the other end of `dial`.
    ///
    /// # Errors
    /// None became free for a minute.
    pub(crate) async fn take(&self, dial: &Dial) -> Result<Turn, ChannelError> {
        self.take_within(PATIENCE, dial).await
    }

    async fn take_within(&self, limit: Duration, dial: &Dial) -> Result<Turn, ChannelError> {
        match timeout(limit, Arc::clone(&self.0).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Turn { _permit: permit }),
            // Nobody closes it, so that it can only be that none was free.
            _ => Err(ChannelError::Turn {
                address: dial.authority(),
                others: HANDSHAKES,
                after: limit,
            }),
        }
    }
}

/// The turn that a client was given before it has to dial.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// Held by the one exchange that waits for a turn: the others want the same connection.
    asking: Mutex<()>,
    turn: RefCell<Option<Turn>>,
}

impl Ahead {
    /// Waits for a turn, where one is `needed` to dial.
    ///
    /// # Errors
    /// None became free for a minute.
    pub(crate) async fn take(
        &self,
        dial: &Dial,
        needed: impl Fn() -> bool,
    ) -> Result<TurnAhead<'_>, ChannelError> {
        // Without TLS there will be no handshake, and dialling says so.
        let Some(tls) = dial.tls.as_ref().filter(|_| needed()) else {
            return Ok(TurnAhead::NONE);
        };
        let _asking = self.asking.lock().await;
        if !needed() || self.turn.borrow().is_some() {
            return Ok(TurnAhead::NONE);
        }
        let turn = tls.turns().take(dial).await?;
        self.turn.replace(Some(turn));
        Ok(TurnAhead(Some(self)))
    }

    /// The turn, for a dial that begins now.
    pub(crate) fn used(&self) -> Option<Turn> {
        self.turn.take()
    }
}

/// A turn to dial that [`Channel::turn`](crate::Channel::turn) waited for. Dropped, it gives back what no dial has used.
#[derive(Debug)]
#[must_use]
pub struct TurnAhead<'a>(Option<&'a Ahead>);

impl TurnAhead<'_> {
    /// For a channel that has nothing to wait for.
    pub(crate) const NONE: Self = Self(None);
}

impl Drop for TurnAhead<'_> {
    fn drop(&mut self) {
        let unused = self.0.and_then(Ahead::used);
        drop(unused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stamping;
    use crate::tls::{ClientTls, self_signed};

    fn dial() -> Dial {
        let identity = self_signed(&["127.0.0.1"]).unwrap();
        Dial {
            host: "127.0.0.1".to_owned(),
            port: 9,
            path: String::new(),
            headers: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(5),
            tls: Some(ClientTls::trusting(identity.cert_pem.as_bytes()).unwrap()),
            stamping: Stamping::default(),
            nagle: false,
        }
    }

    fn free(dial: &Dial) -> usize {
        dial.tls.as_ref().unwrap().turns().0.available_permits()
    }

    #[tokio::test]
    async fn who_waits_in_vain_is_told_what_for() {
        let (turns, dial) = (Turns::default(), dial());
        let mut taken = Vec::new();
        for _ in 0..HANDSHAKES {
            taken.push(turns.take(&dial).await.unwrap());
        }
        let error = turns.take_within(Duration::ZERO, &dial).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("waited for a turn to connect to 127.0.0.1:9"),
            "{text}"
        );
        taken.pop();
        turns.take_within(Duration::ZERO, &dial).await.unwrap();
    }

    #[tokio::test]
    async fn a_turn_is_taken_once_where_it_is_needed_and_given_back_where_no_dial_used_it() {
        let (ahead, dial) = (Ahead::default(), dial());
        let unneeded = ahead.take(&dial, || false).await.unwrap();
        assert_eq!(free(&dial), HANDSHAKES);
        let first = ahead.take(&dial, || true).await.unwrap();
        let second = ahead.take(&dial, || true).await.unwrap();
        assert_eq!(free(&dial), HANDSHAKES - 1);
        drop((unneeded, second));
        assert_eq!(free(&dial), HANDSHAKES - 1);
        drop(first);
        assert_eq!(free(&dial), HANDSHAKES);

        let first = ahead.take(&dial, || true).await.unwrap();
        let turn = ahead.used();
        drop(first);
        assert_eq!(free(&dial), HANDSHAKES - 1);
        drop(turn);
        assert_eq!(free(&dial), HANDSHAKES);
    }
}

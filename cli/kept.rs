//! The replies of a row's turn in a block, which are kept until the turn is over and meet the proxy's records then.

use std::fmt;

use tokenlag_probes::Exchange;

/// Deltas that are kept at most, 40 bytes each: as many as the proxy keeps of its own. Of more, part could not be joined.
const MOST: usize = 4_000_000;

/// Replies of a turn, up to a bound.
#[derive(Debug, Default)]
pub struct Kept {
    exchanges: Vec<Exchange>,
    deltas: usize,
}

/// The turn has more deltas than are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a row's turn in a block has more than {MOST} deltas, and so many replies are not kept in memory; make the turns \
             shorter: more --blocks, or a shorter run"
        )
    }
}

impl std::error::Error for TooMany {}

impl Kept {
    /// Keeps a session's replies.
    ///
    /// # Errors
    /// [`TooMany`], from then on until they are taken; what came before is still there.
    pub fn add(&mut self, exchanges: Vec<Exchange>) -> Result<(), TooMany> {
        self.deltas += exchanges.iter().map(|it| it.tokens.len()).sum::<usize>();
        self.within()?;
        self.exchanges.extend(exchanges);
        Ok(())
    }

    /// Whether all of the turn was kept.
    ///
    /// # Errors
    /// [`TooMany`]
    pub fn within(&self) -> Result<(), TooMany> {
        match self.deltas {
            0..=MOST => Ok(()),
            _ => Err(TooMany),
        }
    }

    /// The replies.
    pub fn exchanges(&self) -> &[Exchange] {
        &self.exchanges
    }

    /// Takes the replies, for the next turn to begin with none.
    pub fn take(&mut self) -> Vec<Exchange> {
        std::mem::take(self).exchanges
    }
}

#[cfg(test)]
mod tests {
    use tokenlag_probes::{DeltaKind, Place, Stamp, TokenMark, TraceId};

    use super::*;

    fn reply(deltas: usize) -> Vec<Exchange> {
        let at = Stamp::from_nanos(1_000);
        let mut exchange = Exchange::begin(TraceId::from_bits(7), Place::default(), at, at, deltas);
        let mark = TokenMark {
            at,
            chunk: 0,
            kind: DeltaKind::Content,
        };
        exchange.tokens.resize(deltas, mark);
        vec![exchange]
    }

    #[test]
    fn a_turn_is_kept_up_to_its_bound_and_the_next_has_all_of_it_again() {
        let mut kept = Kept::default();
        kept.add(reply(MOST - 1)).unwrap();
        kept.add(reply(1)).unwrap();
        assert_eq!(kept.add(reply(1)), Err(TooMany));
        assert_eq!(kept.add(reply(1)), Err(TooMany));
        assert_eq!(kept.within(), Err(TooMany));
        assert_eq!(kept.take().len(), 2);
        assert!(kept.exchanges().is_empty());
        kept.add(reply(2)).unwrap();
        assert_eq!(kept.within(), Ok(()));
    }
}

//! A campaign: rows take turns in short blocks of random order, so that what drifts hits all rows alike.

use std::rc::Rc;
use std::time::Duration;

use rand::seq::SliceRandom;
use tokenlag_probes::{Clock, MonoClock, Place, Stamp};

use crate::cell::{self, CellEnd, CellName, CellPlan, Sink};
use crate::prompt::Phase;
use crate::seeds::{Purpose, generator};
use crate::session::{Lane, Shared};

/// What a campaign does.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The rows, in the order of the tables.
    pub lanes: Vec<Rc<Lane>>,
    /// Blocks at most.
    pub blocks: u32,
    /// No block begins after so long; `None`: all of them run.
    pub duration: Option<Duration>,
    /// What each row does in each block.
    pub cell: CellPlan,
}

/// Who watches a campaign. What it does between cells is outside of any measured window; exchanges are its own as
/// soon as their session ends.
pub trait Observer: Sink {
    /// Why the campaign cannot go on: a disk that is full, say.
    type Error;

    /// A cell is about to start.
    fn cell_starts(
        &mut self,
        lane: &Lane,
        name: &CellName,
    ) -> impl Future<Output = Result<(), Self::Error>>;

    /// A cell is over; its exchanges were handed over already.
    fn cell_ended(
        &mut self,
        lane: &Lane,
        name: &CellName,
        end: CellEnd,
    ) -> impl Future<Output = Result<(), Self::Error>>;

    /// What was found is exact enough: no further block is needed. It is asked between blocks.
    fn is_enough(&self) -> bool {
        false
    }
}

/// How a campaign ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As planned.
    Whole,
    /// It was stopped; the cells seen so far stand.
    Stopped,
}

impl Campaign {
    /// Runs block after block. Every cell that was begun is given to the observer, the last one too when the run is
    /// stopped within it.
    ///
    /// # Errors
    /// The observer's.
    pub async fn run<O: Observer>(
        &self,
        shared: &Rc<Shared>,
        observer: &mut O,
    ) -> Result<Ended, O::Error> {
        let start = MonoClock.now();
        let mut first_serial = 0;
        for block in 0..self.blocks {
            if self.is_over(start) || observer.is_enough() {
                break;
            }
            for (order, at) in self
                .order(shared.prompts.seed, block)
                .into_iter()
                .enumerate()
            {
                if shared.stop.is_raised() {
                    return Ok(Ended::Stopped);
                }
                let lane = &self.lanes[at];
                let name = CellName {
                    phase: Phase::Measured,
                    block,
                    order: order as u32,
                    first_serial,
                };
                observer.cell_starts(lane, &name).await?;
                let end =
                    cell::run_into(shared.clone(), lane.clone(), self.cell, name, observer).await;
                first_serial += end.sessions;
                observer.cell_ended(lane, &name, end).await?;
            }
        }
        Ok(if shared.stop.is_raised() {
            Ended::Stopped
        } else {
            Ended::Whole
        })
    }

    /// The rows' order in a block, as places in the list.
    fn order(&self, seed: u64, block: u32) -> Vec<usize> {
        let place = Place {
            block,
            ..Place::default()
        };
        let mut order: Vec<usize> = (0..self.lanes.len()).collect();
        order.shuffle(&mut generator(seed, Purpose::Order, 0, place));
        order
    }

    fn is_over(&self, start: Stamp) -> bool {
        let spent = MonoClock.now().since(start);
        self.duration
            .is_some_and(|limit| u128::try_from(spent).is_ok_and(|spent| spent >= limit.as_nanos()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tokenlag_dialect::Dialect;
    use tokenlag_probes::Row;

    use super::*;
    use crate::arrivals::Arrivals;
    use crate::cell::Connections;
    use crate::endpoint::{Endpoint, Limits};
    use tokenlag_channel::BaseUrl;

    #[test]
    fn the_order_is_random_by_block_and_the_same_for_a_seed() {
        let base = BaseUrl::of("127.0.0.1", 1);
        let endpoint = Endpoint::new(&base, Dialect::Responses, Vec::new(), Limits::default());
        let lane = |index| {
            Rc::new(Lane {
                row: Row::HTTP_FULL,
                index,
                endpoint: endpoint.clone(),
            })
        };
        let campaign = Campaign {
            lanes: (0..5).map(lane).collect(),
            blocks: 40,
            duration: None,
            cell: CellPlan {
                arrivals: Arrivals::Closed,
                concurrency: 1,
                sessions: Some(1),
                duration: None,
                turns: 1,
                connections: Connections::PerSession,
            },
        };
        let orders: Vec<_> = (0..40).map(|block| campaign.order(1, block)).collect();
        assert_eq!(orders[3], campaign.order(1, 3));
        assert!(orders.iter().collect::<HashSet<_>>().len() > 20);
        for place in 0..5 {
            let firsts: HashSet<_> = orders.iter().map(|order| order[place]).collect();
            assert_eq!(firsts.len(), 5, "every row comes at every place");
        }
    }
}

//! What a row's turns gave: stacks of each end, the tokens that they were for, and the CPU time that the system booked meanwhile.

use std::collections::BTreeMap;

use tokenlag_probes::{Exchange, Outcome, Row};
use tokenlag_profiling::Stacks;

use super::sampling::{Carrier, End};
use crate::cpu::Usage;

/// What was sampled in a row's turns.
#[derive(Clone, Debug)]
pub struct RowProfile {
    /// The row.
    pub row: Row,
    /// Tokens that it carried meanwhile.
    pub tokens: u64,
    /// Its ends' stacks, as they were sampled.
    pub ends: BTreeMap<End, Stacks>,
    /// What was booked for each end; absent where the system did not tell.
    booked: BTreeMap<End, Booked>,
    /// How long it was from the run's first turn to the end of this row's last one.
    pub run_ns: f64,
}

/// CPU time, and the tokens of the turns in which the system told it.
#[derive(Clone, Copy, Debug, Default)]
struct Booked {
    cpu_ns: u64,
    tokens: u64,
}

/// CPU time that the ends of a row used in its turn, as the system booked it.
#[derive(Clone, Debug, Default)]
pub struct Spent {
    /// Of the load generator's thread that measures, in nanoseconds.
    pub client_ns: Option<u64>,
    /// Of proxies that were started here, by process.
    pub proxies: BTreeMap<u32, Usage>,
}

impl Spent {
    fn of(&self, carrier: &Carrier) -> Option<u64> {
        let used = carrier.pid.and_then(|pid| self.proxies.get(&pid));
        used.map(|used| used.cpu_ns)
    }
}

impl RowProfile {
    /// A row that had no turn yet.
    pub fn new(row: Row) -> Self {
        Self {
            row,
            tokens: 0,
            ends: BTreeMap::new(),
            booked: BTreeMap::new(),
            run_ns: 0.0,
        }
    }

    /// Adds a turn: what was `sampled`, the exchanges that came to their end, and what the row's `carriers` and this process used.
    pub fn add(
        &mut self,
        sampled: Vec<(End, Stacks)>,
        exchanges: &[Exchange],
        carriers: &[Carrier],
        spent: &Spent,
    ) {
        let tokens = exchanges.iter().map(paid_tokens).sum::<u64>();
        self.tokens += tokens;
        for (end, stacks) in sampled {
            self.ends.entry(end).or_default().merge(stacks);
        }
        self.book(End::Client, tokens, spent.client_ns);
        for carrier in carriers {
            self.book(carrier.end, tokens, spent.of(carrier));
        }
    }

    /// A turn of which the system told nothing, as when the process ended in it, is left out of the end's price.
    fn book(&mut self, end: End, tokens: u64, used_ns: Option<u64>) {
        if let Some(used_ns) = used_ns {
            let booked = self.booked.entry(end).or_default();
            booked.cpu_ns = booked.cpu_ns.saturating_add(used_ns);
            booked.tokens += tokens;
        }
    }

    /// CPU time that a sample of this end stands for, by what the system booked, in nanoseconds; `None` where it did not tell, or
    /// told of none though there are samples, or there are no samples. A process that works in short bursts is interrupted less often
    /// than its CPU time says: the kernel looks at its ticks alone, and gives one signal for however many are due.
    pub fn booked_ns(&self, end: End) -> Option<f64> {
        let booked = self.booked.get(&end)?;
        if booked.tokens == 0 || booked.cpu_ns == 0 {
            return None;
        }
        let samples = self.ends.get(&end).map_or(0, Stacks::total);
        let per_token = booked.cpu_ns as f64 / booked.tokens as f64;
        (samples > 0).then(|| per_token * self.tokens as f64 / samples as f64)
    }

    /// CPU time that was booked for ends of which there is not one sample, in nanoseconds.
    pub fn unseen_ns(&self) -> u64 {
        let unseen = (self.booked.iter())
            .filter(|(end, _)| self.ends.get(end).is_none_or(|it| it.total() == 0));
        unseen.fold(0, |sum, (_, booked)| sum.saturating_add(booked.cpu_ns))
    }
}

/// What CPU time is paid for, as in reports ([`tokenlag_probes::Tallies::paid_tokens`]): output tokens as `usage` counts them, deltas
/// where there is none, and those of exchanges that did not come to their end.
fn paid_tokens(exchange: &Exchange) -> u64 {
    match (exchange.outcome, exchange.usage) {
        (Outcome::Complete, Some(usage)) => usage.output,
        _ => exchange.tokens.len() as u64,
    }
}

#[cfg(test)]
mod tests {
    use tokenlag_probes::{Clock, DeltaKind, MonoClock, Place, TokenMark, TraceId, Usage};
    use tokenlag_profiling::folded;

    use super::*;

    /// Of two deltas.
    fn exchange(outcome: Outcome) -> Exchange {
        let at = MonoClock.now();
        let mut exchange = Exchange::begin(TraceId::from_bits(1), Place::default(), at, at, 2);
        let mark = TokenMark {
            at,
            chunk: 0,
            kind: DeltaKind::Content,
        };
        exchange.tokens = vec![mark; 2];
        exchange.outcome = outcome;
        exchange
    }

    fn carrier(end: End, pid: Option<u32>) -> Carrier {
        Carrier {
            end,
            admin: "http://127.0.0.1:9".parse().unwrap(),
            pid,
        }
    }

    fn spent(client_ns: u64, proxies: &[(u32, u64)]) -> Spent {
        let used = |&(pid, cpu_ns): &(u32, u64)| {
            let used = crate::cpu::Usage {
                cpu_ns,
                ..Default::default()
            };
            (pid, used)
        };
        Spent {
            client_ns: Some(client_ns),
            proxies: proxies.iter().map(used).collect(),
        }
    }

    fn stacks(samples: u64) -> Stacks {
        folded::parse(&format!("t;f {samples}\n")).unwrap()
    }

    #[test]
    fn a_token_that_came_was_paid_for_however_its_exchange_ended() {
        assert_eq!(paid_tokens(&exchange(Outcome::Truncated)), 2);
        let mut complete = exchange(Outcome::Complete);
        assert_eq!(paid_tokens(&complete), 2);
        complete.usage = Some(Usage {
            output: 5,
            ..Usage::default()
        });
        assert_eq!(paid_tokens(&complete), 5);
    }

    #[test]
    fn the_proxies_of_a_pair_are_booked_each_by_itself() {
        let mut profile = RowProfile::new(Row::HTTP_FULL);
        let carriers = [
            carrier(End::Sidecar, Some(10)),
            carrier(End::Proxy, Some(20)),
        ];
        let sampled = vec![
            (End::Client, stacks(4)),
            (End::Sidecar, stacks(10)),
            (End::Proxy, stacks(10)),
        ];
        let exchanges = [exchange(Outcome::Complete)];
        profile.add(
            sampled,
            &exchanges,
            &carriers,
            &spent(400, &[(10, 3_000), (20, 1_000)]),
        );
        // As many samples stand for three times as much.
        let ns = |end| profile.booked_ns(end);
        assert_eq!(
            [End::Client, End::Sidecar, End::Proxy].map(ns),
            [Some(100.0), Some(300.0), Some(100.0)]
        );
    }

    #[test]
    fn a_turn_that_is_not_booked_does_not_make_a_token_cheaper() {
        let mut profile = RowProfile::new(Row::HTTP_FULL);
        let carriers = [carrier(End::Proxy, Some(20))];
        for proxies in [&[(20, 8_000)][..], &[]] {
            profile.add(
                vec![(End::Proxy, stacks(8))],
                &[exchange(Outcome::Complete)],
                &carriers,
                &spent(1, proxies),
            );
        }
        assert_eq!(profile.tokens, 4);
        assert_eq!(profile.booked_ns(End::Proxy), Some(1_000.0));
        assert_eq!(profile.booked_ns(End::Client), None, "no samples");
        assert_eq!(profile.unseen_ns(), 2, "the client's");
        let mut unknown = RowProfile::new(Row::HTTP_FULL);
        let carriers = [carrier(End::Proxy, None)];
        unknown.add(
            vec![(End::Proxy, stacks(8))],
            &[exchange(Outcome::Complete)],
            &carriers,
            &spent(1, &[]),
        );
        assert_eq!(unknown.booked_ns(End::Proxy), None);
        let mut nothing = RowProfile::new(Row::HTTP_FULL);
        let carriers = [carrier(End::Proxy, Some(20))];
        nothing.add(
            vec![(End::Proxy, stacks(8))],
            &[exchange(Outcome::Complete)],
            &carriers,
            &spent(0, &[(20, 0)]),
        );
        // Samples that stand for nothing have no price.
        assert_eq!(nothing.booked_ns(End::Proxy), None);
    }
}

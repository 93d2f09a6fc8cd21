//! What a sampler saw: stacks of functions, and how often each was there.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The most different stacks that are kept; further samples are counted and lost. It is far beyond what programs have.
const DIFFERENT: usize = 200_000;

/// A function that was on a stack, and where in it the program was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frame {
    /// Its demangled name, or what stands for one where none is known.
    pub function: String,
    /// Its source file; empty where that is not known.
    pub file: String,
    /// The line; 0 where it is not known.
    pub line: u32,
}

impl Frame {
    /// A function of which only the name is known.
    pub fn named(function: impl Into<String>) -> Self {
        Self {
            function: function.into(),
            ..Self::default()
        }
    }
}

/// Sampled stacks with their counts. Each begins at the root, with the name of its thread, and ends where the CPU was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stacks {
    counts: BTreeMap<Vec<Arc<Frame>>, u64>,
    total: u64,
    lost: u64,
}

impl Stacks {
    /// Adds `count` samples of a stack. One without frames is counted as lost: nothing is known of it.
    pub fn add(&mut self, stack: Vec<Arc<Frame>>, count: u64) {
        if stack.is_empty() || (self.counts.len() >= DIFFERENT && !self.counts.contains_key(&stack))
        {
            self.lose(count);
            return;
        }
        self.total = self.total.saturating_add(count);
        let counted = self.counts.entry(stack).or_default();
        *counted = counted.saturating_add(count);
    }

    /// Notes that `count` samples were taken of whose stacks nothing is known.
    pub fn lose(&mut self, count: u64) {
        self.lost = self.lost.saturating_add(count);
    }

    /// Adds all of `more`.
    pub fn merge(&mut self, more: Self) {
        self.lose(more.lost);
        for (stack, count) in more.counts {
            self.add(stack, count);
        }
    }

    /// Samples with a stack.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Samples whose stack is not here: those beyond so many different ones, and those that perf says it lost. What never became a
    /// sample is not known: the kernel gives one signal for several that are due, and a thread that is signalled while another's
    /// stack is being read leaves its own out.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Stacks, root first, and how often each was seen; in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&[Arc<Frame>], u64)> {
        self.counts
            .iter()
            .map(|(stack, count)| (&stack[..], *count))
    }

    /// Those that `keep` holds of, which is given the root's name. What was lost may have been anyone's, and stays lost.
    #[must_use]
    pub fn of_roots(&self, keep: impl Fn(&str) -> bool) -> Self {
        let mut kept = Self {
            lost: self.lost,
            ..Self::default()
        };
        for (stack, count) in self.iter().filter(|(stack, _)| keep(&stack[0].function)) {
            kept.add(stack.to_vec(), count);
        }
        kept
    }

    /// By function: samples in which it was where the CPU was, and samples in which it was anywhere on the stack.
    pub fn functions(&self) -> BTreeMap<&str, Share> {
        let mut functions: BTreeMap<&str, Share> = BTreeMap::new();
        for (stack, count) in self.iter() {
            // A function that calls itself is in the sample once.
            let mut seen: Vec<&str> = stack.iter().map(|frame| &*frame.function).collect();
            if let Some(leaf) = seen.last() {
                let share = functions.entry(leaf).or_default();
                share.own = share.own.saturating_add(count);
            }
            seen.sort_unstable();
            seen.dedup();
            for function in seen {
                let share = functions.entry(function).or_default();
                share.total = share.total.saturating_add(count);
            }
        }
        functions
    }
}

/// A function's samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// The CPU was in it.
    pub own: u64,
    /// The CPU was in it, or in what it called.
    pub total: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folded;

    #[test]
    fn a_function_that_calls_itself_is_counted_once() {
        let stacks = folded::parse("a;b;a 3\na;b 2\na 1\n").unwrap();
        let functions = stacks.functions();
        assert_eq!(functions["a"], Share { own: 4, total: 6 });
        assert_eq!(functions["b"], Share { own: 2, total: 5 });
        assert_eq!(stacks.total(), 6);
    }

    #[test]
    fn merged_stacks_add_up() {
        let mut one = folded::parse("a;b 3\nc 1\n").unwrap();
        one.merge(folded::parse("a;b 2\nc;d 4\n").unwrap());
        assert_eq!(folded::text(&one), "a;b 5\nc 1\nc;d 4\n");
        one.add(Vec::new(), 7);
        assert_eq!((one.total(), one.lost()), (10, 7));
        assert_eq!(
            folded::text(&one.of_roots(|root| root == "c")),
            "c 1\nc;d 4\n"
        );
    }
}

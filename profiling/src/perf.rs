//! What `perf script` prints of samples, as stacks: with `-F comm,pid,tid,ip,sym,dso`, a line for each sample, one for each frame
//! from the leaf on, and an empty one; with `--show-lost-events`, a line where samples were lost (perf-script(1)).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::stacks::{Frame, Stacks};

/// The fields that are to be asked for.
pub const FIELDS: &str = "comm,pid,tid,ip,sym,dso";

/// A thread: its process's number, and its own.
pub type Thread = (u32, u32);

/// The stacks of each thread, from the root, which is the thread's name. The kernel's functions end in `_[k]`, as flamegraphs
/// have them. Lines that are none of the format are passed over, and frames of which nothing is known left out.
pub fn parse(text: &str) -> BTreeMap<Thread, Stacks> {
    let mut printed = Printed::default();
    for line in text.lines() {
        printed.line(line);
    }
    printed.finish()
}

/// What was printed up to now: a recording of a gigabyte is hundreds of megabytes of text, which nobody need have at once.
#[derive(Debug, Default)]
pub struct Printed {
    threads: BTreeMap<Thread, Stacks>,
    sample: Option<Sample>,
}

impl Printed {
    /// The next line.
    pub fn line(&mut self, line: &str) {
        if line.trim().is_empty() {
            self.end();
        } else if line.starts_with(char::is_whitespace) {
            if let (Some(sample), Some(frame)) = (&mut self.sample, frame(line))
                && sample.stack.len() < DEEPEST
            {
                sample.stack.push(frame);
            }
        } else if let Some((thread, count)) = lost(line) {
            self.end();
            self.threads.entry(thread).or_default().lose(count);
        } else {
            self.sample = begun(line);
        }
    }

    /// No line comes any more: the stacks, as [`parse`] has them.
    pub fn finish(mut self) -> BTreeMap<Thread, Stacks> {
        self.end();
        self.threads
    }

    /// An empty line ends a sample.
    fn end(&mut self) {
        if let Some(Sample {
            thread,
            root,
            mut stack,
        }) = self.sample.take()
        {
            stack.push(root);
            stack.reverse();
            self.threads.entry(thread).or_default().add(stack, 1);
        }
    }
}

/// Frames of a stack that are kept: perf has no more than 127 unless it is told otherwise.
const DEEPEST: usize = 512;

#[derive(Debug)]
struct Sample {
    thread: Thread,
    root: Arc<Frame>,
    /// The leaf first.
    stack: Vec<Arc<Frame>>,
}

/// `name of it 10253/10254`.
fn begun(line: &str) -> Option<Sample> {
    let (name, thread) = thread(line)?;
    Some(Sample {
        thread,
        root: Arc::new(Frame::named(name)),
        stack: Vec::new(),
    })
}

fn thread(line: &str) -> Option<(&str, Thread)> {
    let (name, numbers) = line.trim_end().rsplit_once(' ')?;
    let (pid, tid) = numbers.trim_end_matches(':').split_once('/')?;
    Some((name.trim(), (pid.parse().ok()?, tid.parse().ok()?)))
}

/// `name of it 10253/10254 PERF_RECORD_LOST lost 12`, of either kind of record: the thread that wrote it down, and so many samples
/// that there was no room for.
fn lost(line: &str) -> Option<(Thread, u64)> {
    let (before, record) = line.split_once(" PERF_RECORD_LOST")?;
    let count = record.split_whitespace().last()?.parse().ok()?;
    Some((thread(before)?.1, count))
}

/// `bad875 core::slice::index::range (/usr/bin/tokenlag)`, indented.
fn frame(line: &str) -> Option<Arc<Frame>> {
    let (address, rest) = line.trim().split_once(' ')?;
    u64::from_str_radix(address, 16).ok()?;
    // A program that was built anew meanwhile is `(/tmp/tokenlag (deleted))`.
    let rest = rest.strip_suffix(" (deleted))").unwrap_or(rest);
    let (symbol, object) = rest.rsplit_once(" (")?;
    let symbol = symbol.trim();
    if symbol.is_empty() || symbol == "[unknown]" {
        return None;
    }
    let kernel = object.starts_with('[') && !object.starts_with("[vdso");
    let function = match kernel {
        true => format!("{symbol}_[k]"),
        false => symbol.to_owned(),
    };
    Some(Arc::new(Frame::named(function)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::folded;

    const PRINTED: &str = "proxy-0 10253/10254 \n\
        \tffffffff8209a542 tcp_ack ([kernel.kallsyms])\n\
        \tffffffff81e2f2e2 __sys_sendto ([kernel.kallsyms])\n\
        \t          10aba4 __send (/usr/lib/x86_64-linux-gnu/libc.so.6)\n\
        \t          5eb663 <alloc::vec::Vec<T> as x::Y>::relay (a) (/tmp/tokenlag (deleted))\n\
        \tffffffffffffffff [unknown] ([unknown])\n\
        \n\
        two words 7/7 \n\
        \t          5eb663 main (/usr/bin/x)\n\
        \n\
        proxy-0 10253/10254 \n\
        \t     7fff000010 clock_gettime ([vdso])\n";

    #[test]
    fn samples_are_stacks_of_their_threads() {
        let threads = parse(PRINTED);
        assert_eq!(
            threads.keys().copied().collect::<Vec<_>>(),
            [(7, 7), (10_253, 10_254)]
        );
        assert_eq!(folded::text(&threads[&(7, 7)]), "two words;main 1\n");
        assert_eq!(
            folded::text(&threads[&(10_253, 10_254)]),
            "proxy-0;<alloc::vec::Vec<T> as x::Y>::relay (a);__send;__sys_sendto_[k];tcp_ack_[k] 1\nproxy-0;clock_gettime 1\n"
        );
    }

    #[test]
    fn what_was_lost_is_told_and_ends_no_other_sample() {
        let printed = "x 1/2 \n\tab f (x)\nx 1/2 PERF_RECORD_LOST lost 12\n\n\
            x 1/3 PERF_RECORD_LOST_SAMPLES lost 4\nx 1/3 PERF_RECORD_LOST lost many\n";
        let threads = parse(printed);
        let counts = |it: &Stacks| (it.total(), it.lost());
        assert_eq!(counts(&threads[&(1, 2)]), (1, 12));
        assert_eq!(counts(&threads[&(1, 3)]), (0, 4));
    }

    #[test]
    fn what_is_none_of_it_is_passed_over() {
        for text in [
            "",
            "\n\n",
            "\tabc f (x)\n",
            "no numbers\n\tabc f (x)\n\n",
            "x 1/y\n\n",
        ] {
            assert!(parse(text).is_empty(), "{text}");
        }
        let cut = &PRINTED[..PRINTED.len() / 2];
        assert!(parse(cut).values().map(Stacks::total).sum::<u64>() == 1);
    }

    proptest! {
        #[test]
        fn any_text_ends_in_stacks(text in "([a-z ]{0,6} [0-9]{1,4}/[0-9]{1,11}\n|\t[0-9a-f]{1,20} [a-z:<> ]{0,9} \\([a-z\\[\\]]{0,4}\\)?\n|\n|.){0,30}") {
            let samples: u64 = parse(&text).values().map(Stacks::total).sum();
            prop_assert!(samples <= text.lines().count() as u64);
        }
    }
}

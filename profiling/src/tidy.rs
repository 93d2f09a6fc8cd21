//! Stacks as a person reads them: what merely passes a call on is left out, an `async` function is named once, generic
//! arguments are dropped. An `async` program is otherwise forty frames of polling around four of work.
//!
//! The time of a frame that is left out is its caller's. A stack that ends within the async runtime keeps one frame for that,
//! named after the runtime's part: it is a cost of its own.

use std::collections::HashMap;
use std::sync::Arc;

use crate::name::shorten;
use crate::stacks::{Frame, Stacks};

/// What passes calls on, by the beginnings of paths. Where a path begins with several, the longest decides.
const PASSES_ON: [&str; 13] = [
    "core::",
    "core_arch::",
    "std::",
    "rust_try",
    "alloc::",
    "hashbrown::",
    "memchr::arch::",
    "tokio::",
    "tokio_util::",
    "futures_core::",
    "futures_util::",
    "mio::",
    "pin_project_lite::",
];

/// What does work of its own, of those.
const WORKS: [&str; 14] = [
    "core::fmt",
    "core::hash",
    "core::num::dec2flt",
    "core::slice::memchr",
    "core::slice::sort",
    "core::str",
    "std::collections",
    "std::fs",
    "std::io",
    "alloc::alloc",
    "alloc::collections",
    "alloc::fmt",
    "alloc::raw_vec",
    "alloc::string",
];

/// The async runtime: a stack that ends in it says so.
const RUNTIME: [&str; 5] = [
    "tokio::",
    "tokio_util::",
    "futures_core::",
    "futures_util::",
    "mio::",
];

/// How a thread begins, and how it enters the kernel: there is nothing to see there.
const ENTRY: [&str; 11] = [
    "_start",
    "main",
    "start_main",
    "start_main_impl",
    "start_call_main",
    "start_thread",
    "clone",
    "clone3",
    "clone_start",
    "entry_SYSCALL_64_after_hwframe_[k]",
    "do_syscall_64_[k]",
];

/// The same samples in stacks that a person can read.
#[must_use]
pub fn tidy(stacks: &Stacks) -> Stacks {
    let mut names = Names::default();
    let mut tidied = Stacks::default();
    for (stack, count) in stacks.iter() {
        tidied.add(names.tidied(stack), count);
    }
    tidied.lose(stacks.lost());
    tidied
}

/// What is shown of each function.
#[derive(Default)]
struct Names(HashMap<(String, String), Shown>);

#[derive(Clone)]
enum Shown {
    /// It works, and has this name.
    Work(Arc<str>),
    /// It passes on. At the end of a stack it has this name, if it is the runtime's.
    Glue(Option<Arc<str>>),
}

impl Names {
    fn tidied(&mut self, stack: &[Arc<Frame>]) -> Vec<Arc<Frame>> {
        // The root is its thread, whatever that is called.
        let (root, frames) = match stack.split_first() {
            Some((root, frames)) => (Arc::clone(root), frames),
            None => return Vec::new(),
        };
        let mut tidied = vec![root];
        let mut runtime = None;
        for frame in frames {
            match self.shown(frame) {
                Shown::Work(name) => {
                    runtime = None;
                    push(&mut tidied, &name, frame);
                }
                Shown::Glue(Some(name)) => runtime = Some((name, frame)),
                Shown::Glue(None) => {}
            }
        }
        if let Some((name, frame)) = runtime {
            push(&mut tidied, &name, frame);
        }
        tidied
    }

    fn shown(&mut self, frame: &Frame) -> Shown {
        let key = (frame.function.clone(), frame.file.clone());
        let shown = self.0.entry(key);
        let shown = shown.or_insert_with(|| show(&frame.function, &frame.file));
        shown.clone()
    }
}

/// An `async` function and its body are one, and so is a function that goes on in a closure of its own.
fn push(stack: &mut Vec<Arc<Frame>>, name: &str, frame: &Frame) {
    let frame = Arc::new(Frame {
        function: name.to_owned(),
        ..frame.clone()
    });
    // The root is a thread, which may have any function's name.
    if let [_, .., last] = &mut stack[..]
        && last.function == name
    {
        *last = frame;
    } else {
        stack.push(frame);
    }
}

fn show(function: &str, file: &str) -> Shown {
    let name = shorten(function, file);
    if ENTRY.contains(&&*name) {
        return Shown::Glue(None);
    }
    let begins = |with: &&&str| name.starts_with(**with);
    let passes_on = PASSES_ON.iter().any(|with| begins(&with));
    if !passes_on || WORKS.iter().any(|with| begins(&with)) {
        return Shown::Work(name.into());
    }
    let runtime = RUNTIME.iter().any(|with| begins(&with));
    Shown::Glue(runtime.then(|| part(&name).into()))
}

/// A path's first three names: `tokio::runtime::time`.
fn part(path: &str) -> &str {
    match path.match_indices("::").nth(2) {
        Some((end, _)) => &path[..end],
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folded;

    fn tidied(stack: &[&str]) -> String {
        let mut stacks = Stacks::default();
        let frames = stack.iter().map(|name| Arc::new(Frame::named(*name)));
        stacks.add(frames.collect(), 1);
        folded::text(&tidy(&stacks))
            .trim_end_matches(" 1\n")
            .to_owned()
    }

    #[test]
    fn polling_is_left_out_and_async_functions_are_named_once() {
        let stack = [
            "tokenlag",
            "_start",
            "__libc_start_main",
            "main",
            "std::rt::lang_start::{{closure}}",
            "tokenlag::main",
            "tokio::runtime::runtime::Runtime::block_on",
            "tokio::runtime::context::runtime::enter_runtime",
            "tokio::task::coop::with_budget",
            "<core::pin::Pin<P> as core::future::future::Future>::poll",
            "tokenlag_loadgen::cell::run_into::{{closure}}",
            "tokenlag_loadgen::session::run::{{closure}}::{{closure}}",
            "tokenlag_loadgen::session::run::{{closure}}",
            "std::panicking::catch_unwind",
            "core::ops::function::FnOnce::call_once",
            "tokenlag_channel::ws::frames::Frames<S>::next::{{closure}}",
            "<tokio::net::tcp::stream::TcpStream as tokio::io::async_read::AsyncRead>::poll_read",
            "__libc_recv",
        ];
        assert_eq!(
            tidied(&stack),
            "tokenlag;tokenlag::main;loadgen::cell::run_into;loadgen::session::run;channel::ws::frames::Frames::next;recv"
        );
    }

    #[test]
    fn time_in_the_runtime_is_shown_and_that_of_small_helpers_is_their_callers() {
        let runtime = [
            "t",
            "tokenlag::main",
            "tokio::runtime::time::Driver::park_internal",
        ];
        assert_eq!(tidied(&runtime), "t;tokenlag::main;tokio::runtime::time");
        let helper = [
            "t",
            "tokenlag_dialect::sse::feed",
            "core::iter::adapters::map::Map<I,F>::next",
        ];
        assert_eq!(tidied(&helper), "t;dialect::sse::feed");
        let work = [
            "t",
            "tokenlag_dialect::sse::feed",
            "alloc::raw_vec::RawVecInner<A>::finish_grow",
            "realloc",
        ];
        assert_eq!(
            tidied(&work),
            "t;dialect::sse::feed;alloc::raw_vec::RawVecInner::finish_grow;realloc"
        );
        assert_eq!(
            tidied(&["t", "core::ops::function::FnOnce::call_once"]),
            "t"
        );
    }

    #[test]
    fn samples_are_kept() {
        let mut stacks =
            folded::parse("t;core::a 3\nt;x::y 4\nt;core::a;x::y;core::b 5\n").unwrap();
        stacks.lose(6);
        let tidied = tidy(&stacks);
        assert_eq!(folded::text(&tidied), "t 3\nt;x::y 9\n");
        assert_eq!((tidied.total(), tidied.lost()), (stacks.total(), 6));
    }
}

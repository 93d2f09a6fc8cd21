//! Folded stacks as text: a line for each, frames from the root with `;` between, then the count. Brendan Gregg's
//! `stackcollapse` format, which flamegraph tools and speedscope read.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::stacks::{Frame, Stacks};

/// A line that is no folded stack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the folded stacks is not `frame;frame count`")]
pub struct NotFolded {
    /// Its number, from 1.
    pub line: usize,
}

/// The stacks by their functions' names alone, in the order of those.
pub fn text(stacks: &Stacks) -> String {
    let mut text = String::new();
    for (line, count) in lines(stacks) {
        text.push_str(&format!("{line} {count}\n"));
    }
    text
}

/// Each line with its count; stacks that differ in nothing but source lines are one.
pub(crate) fn lines(stacks: &Stacks) -> BTreeMap<String, u64> {
    let mut lines = BTreeMap::new();
    for (stack, count) in stacks.iter() {
        let names: Vec<String> = stack.iter().map(|frame| plain(&frame.function)).collect();
        let line: &mut u64 = lines.entry(names.join(";")).or_default();
        *line = line.saturating_add(count);
    }
    lines
}

/// A name that can stand in a line: `;` parts frames, and a line's end parts stacks.
pub(crate) fn plain(name: &str) -> String {
    let plain: String = (name.chars())
        .map(|c| match c {
            ';' => ',',
            c if c.is_control() => ' ',
            c => c,
        })
        .collect();
    match plain.trim() {
        "" => "?".to_owned(),
        name => name.to_owned(),
    }
}

/// Reads what [`text`] writes.
///
/// # Errors
/// A line that is none of it.
pub fn parse(text: &str) -> Result<Stacks, NotFolded> {
    let mut stacks = Stacks::default();
    for (at, line) in text.lines().enumerate() {
        let wrong = || NotFolded { line: at + 1 };
        let (frames, count) = line.rsplit_once(' ').ok_or_else(wrong)?;
        let count: u64 = count.parse().map_err(|_| wrong())?;
        if frames.split(';').any(str::is_empty) {
            return Err(wrong());
        }
        let frames = frames.split(';').map(|name| Arc::new(Frame::named(name)));
        stacks.add(frames.collect(), count);
    }
    Ok(stacks)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_that_are_none_are_refused() {
        for (text, line) in [
            ("a;b", 1),
            ("a 1\nb x", 2),
            ("a;;b 1", 1),
            (" 1", 1),
            ("a -1", 1),
        ] {
            assert_eq!(parse(text), Err(NotFolded { line }), "{text}");
        }
    }

    #[test]
    fn stacks_that_differ_in_source_lines_alone_are_one() {
        let mut stacks = Stacks::default();
        for line in [3, 4] {
            let frame = Frame {
                line,
                ..Frame::named("f<[u8; 4]>")
            };
            stacks.add(vec![Arc::new(frame)], 1);
        }
        assert_eq!(text(&stacks), "f<[u8, 4]> 2\n");
    }

    proptest! {
        #[test]
        fn what_was_written_reads_back(stacks in prop::collection::vec((prop::collection::vec(".{0,12}", 1..6), 1u64..1_000), 0..20)) {
            let mut written = Stacks::default();
            for (names, count) in stacks {
                let frames = names.into_iter().map(|name| Arc::new(Frame::named(name)));
                written.add(frames.collect(), count);
            }
            let folded = text(&written);
            let read = parse(&folded).unwrap();
            prop_assert_eq!(read.total(), written.total());
            prop_assert_eq!(text(&read), folded);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(.|\n){0,200}") {
            let _ = parse(&text);
        }
    }
}

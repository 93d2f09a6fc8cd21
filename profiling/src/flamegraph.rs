//! Flamegraphs: one SVG that opens in any browser, with search and zoom.

use std::collections::BTreeMap;
use std::io;

use inferno::flamegraph::{Options, color::BackgroundColor, from_lines};

use crate::difference::Side;
use crate::folded;
use crate::stacks::Stacks;

/// What stands above a flamegraph.
#[derive(Clone, Debug, Default)]
pub struct Title {
    /// In large letters.
    pub title: String,
    /// Below them.
    pub subtitle: String,
}

/// Why there is no flamegraph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlamegraphError {
    /// There is nothing to draw.
    #[error("there is not one sample to draw")]
    Empty,
    /// It cannot be drawn.
    #[error("the flamegraph cannot be drawn: {0}")]
    Drawing(#[from] io::Error),
}

/// The stacks as an SVG. A frame is as wide as its samples.
///
/// # Errors
/// There are none.
pub fn svg(stacks: &Stacks, title: &Title) -> Result<Vec<u8>, FlamegraphError> {
    let lines = folded::lines(stacks);
    let lines: Vec<String> = lines
        .iter()
        .map(|(line, count)| format!("{line} {count}"))
        .collect();
    draw(&lines, options(title))
}

/// What a unit of work costs in `after` as an SVG, coloured by what changed from `before`: red grew, blue shrank. A frame is as
/// wide as its CPU time for each token; what is only in `before` has no width.
///
/// # Errors
/// There is nothing in `after`.
pub fn difference_svg(
    before: &Side<'_>,
    after: &Side<'_>,
    title: &Title,
) -> Result<Vec<u8>, FlamegraphError> {
    if after.stacks.total() == 0 {
        return Err(FlamegraphError::Empty);
    }
    let mut both: BTreeMap<String, [f64; 2]> = BTreeMap::new();
    for (at, side) in [before, after].into_iter().enumerate() {
        for (line, count) in folded::lines(side.stacks) {
            both.entry(line).or_default()[at] = side.of(count);
        }
    }
    // Whole numbers are asked for.
    let lines =
        (both.iter()).map(|(line, [before, after])| format!("{line} {before:.0} {after:.0}"));
    let mut options = options(title);
    options.count_name = "ns of CPU time a token".to_owned();
    draw(&lines.collect::<Vec<_>>(), options)
}

fn options(title: &Title) -> Options<'static> {
    let mut options = Options::default();
    options.title = title.title.clone();
    options.subtitle = Some(title.subtitle.clone()).filter(|text| !text.is_empty());
    options.bgcolors = Some(BackgroundColor::Flat((255, 255, 255).into()));
    options.count_name = "samples".to_owned();
    // The same names have the same colours in every picture of a run.
    options.hash = true;
    options.deterministic = true;
    options
}

fn draw(lines: &[String], mut options: Options<'_>) -> Result<Vec<u8>, FlamegraphError> {
    if lines.is_empty() {
        return Err(FlamegraphError::Empty);
    }
    let mut svg = Vec::new();
    from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)?;
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn title() -> Title {
        Title {
            title: "ws/full, client".to_owned(),
            subtitle: "12 samples".to_owned(),
        }
    }

    fn side(stacks: &Stacks, work: f64) -> Side<'_> {
        Side {
            stacks,
            period_ns: 1_000.0,
            work,
        }
    }

    #[test]
    fn frames_and_titles_are_in_the_picture() {
        let stacks = folded::parse("t;a::read;recv 3\nt;a::read 9\n").unwrap();
        let svg = String::from_utf8(svg(&stacks, &title()).unwrap()).unwrap();
        assert!(
            svg.contains("<title>recv (3 samples, 25.00%)</title>"),
            "{svg}"
        );
        assert!(svg.contains("ws/full, client") && svg.contains("12 samples"));
        assert!(svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn a_difference_says_what_grew() {
        let before = folded::parse("t;decode 10\nt;gone 1\n").unwrap();
        let after = folded::parse("t;decode 10\nt;send 10\n").unwrap();
        // Twice the work was done after.
        let svg = difference_svg(&side(&before, 1.0), &side(&after, 2.0), &title()).unwrap();
        let svg = String::from_utf8(svg).unwrap();
        for frame in [
            "decode (5,000 ns of CPU time a token, 50.00%; -50.00%)",
            "send (5,000 ns of CPU time a token, 50.00%; +50.00%)",
        ] {
            assert!(svg.contains(&format!("<title>{frame}</title>")), "{svg}");
        }
    }

    #[test]
    fn of_nothing_there_is_no_picture() {
        let none = Stacks::default();
        let some = folded::parse("t 1\n").unwrap();
        assert!(matches!(svg(&none, &title()), Err(FlamegraphError::Empty)));
        let drawn = difference_svg(&side(&some, 1.0), &side(&none, 1.0), &title());
        assert!(matches!(drawn, Err(FlamegraphError::Empty)));
        assert!(difference_svg(&side(&none, 1.0), &side(&some, 1.0), &title()).is_ok());
    }
}

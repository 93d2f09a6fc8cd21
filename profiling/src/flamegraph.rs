//! Flamegraphs: one SVG that opens in any browser, with search and zoom.

use std::io;

use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{Options, from_lines};

use crate::difference::{FunctionChange, Side, changes};
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
    /// The samples stand for no time.
    #[error("what a sample stands for is not known, so that a frame has no width in time")]
    Timeless,
    /// It cannot be drawn.
    #[error("the flamegraph cannot be drawn: {0}")]
    Drawing(#[from] io::Error),
}

/// The stacks as an SVG. A frame is as wide as its samples.
///
/// # Errors
/// There are none.
pub fn svg(stacks: &Stacks, title: &Title) -> Result<Vec<u8>, FlamegraphError> {
    draw(stacks, options(title))
}

/// What a unit of work costs in `after` as an SVG, each frame as wide as its CPU time. Its colour is its function's: red where the
/// function, with what it calls, costs more than in `before`, blue where less, wherever either is called from, and white where they
/// differ by no more than sampling does. Channels reach the same functions on ways of their own, so that their stacks are hardly ever
/// the same.
///
/// Widths are whole samples, and hold however little one of them stands for; what is written of a frame is rounded to a nanosecond,
/// or to a picosecond where a sample stands for less than a nanosecond.
///
/// # Errors
/// There is nothing in `after`, or its samples stand for no time.
pub fn difference_svg(
    before: &Side<'_>,
    after: &Side<'_>,
    title: &Title,
) -> Result<Vec<u8>, FlamegraphError> {
    let sample_ns = after.of(1);
    if !(sample_ns.is_finite() && sample_ns > 0.0) {
        return Err(FlamegraphError::Timeless);
    }
    let changes = changes(before, after);
    let clear = |it: &FunctionChange| {
        if it.total.is_clear() {
            it.total.change_ns
        } else {
            0.0
        }
    };
    let most = changes.iter().map(|it| clear(it).abs()).fold(1.0, f64::max);
    let mut colours = PaletteMap::default();
    for change in &changes {
        colours.insert(folded::plain(&change.function), shade(clear(change) / most));
    }
    let mut options = options(title);
    let (unit, factor) = match sample_ns {
        ..1.0 => ("ps", sample_ns * 1e3),
        _ => ("ns", sample_ns),
    };
    options.count_name = format!("{unit} of CPU time a token");
    options.factor = factor;
    options.palette_map = Some(&mut colours);
    draw(after.stacks, options)
}

/// Of a change from -1 to 1 of the largest one. What is a tenth of it can still be seen.
fn shade(change: f64) -> Color {
    let rest = 250 - (190.0 * change.abs().sqrt().min(1.0)) as u8;
    match change {
        0.0.. => (250, rest, rest).into(),
        _ => (rest, rest, 250).into(),
    }
}

fn options<'a>(title: &Title) -> Options<'a> {
    let mut options = Options::default();
    options.title = title.title.clone();
    options.subtitle = Some(title.subtitle.clone()).filter(|text| !text.is_empty());
    options.bgcolors = Some(BackgroundColor::Flat((255, 255, 255).into()));
    options.count_name = "samples".to_owned();
    // In percent: what is narrower than half a pixel makes the file large, and cannot be seen.
    options.min_width = 0.04;
    // The same names have the same colours in every picture of a run.
    options.hash = true;
    options.deterministic = true;
    options
}

/// Draws the stacks, each as wide as its samples.
fn draw(stacks: &Stacks, mut options: Options<'_>) -> Result<Vec<u8>, FlamegraphError> {
    let mut lines: Vec<(String, u64)> = folded::lines(stacks).into_iter().collect();
    if lines.is_empty() {
        return Err(FlamegraphError::Empty);
    }
    // Frame by frame: as text `a::b` would stand between `a` and `a;c`, and cut the frame `a` in two. Only as a chart of time,
    // whose lines come last first, does the library take them in an order of ours.
    lines.sort_by(|(one, _), (other, _)| other.split(';').cmp(one.split(';')));
    options.flame_chart = true;
    let lines: Vec<String> = lines
        .into_iter()
        .map(|(line, count)| format!("{line} {count}"))
        .collect();
    let mut svg = Vec::new();
    from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)?;
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::difference::Total;

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
            total: Total::Sampled,
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
    fn a_frame_is_whole_beside_one_whose_name_begins_with_its_own() {
        let stacks = folded::parse("t;a 2\nt;a::b;x 5\nt;a;c 12\n").unwrap();
        let svg = String::from_utf8(svg(&stacks, &title()).unwrap()).unwrap();
        assert!(
            svg.contains("<title>a (14 samples, 73.68%)</title>"),
            "{svg}"
        );
    }

    #[test]
    fn a_difference_says_what_grew() {
        let before = folded::parse("t;a;decode 1000\nt;recv 500\nt;gone 300\n").unwrap();
        let after = folded::parse("t;b;decode 1500\nt;c;decode 500\nt;recv 500\nt;send 500\n");
        let after = after.unwrap();
        // Twice the work was done after: decoding costs what it did, on other ways.
        let svg = difference_svg(&side(&before, 1.0), &side(&after, 2.0), &title()).unwrap();
        let svg = String::from_utf8(svg).unwrap();
        for (frame, colour) in [
            (
                "decode (750,000 ns of CPU time a token, 50.00%)",
                "rgb(250,250,250)",
            ),
            (
                "decode (250,000 ns of CPU time a token, 16.67%)",
                "rgb(250,250,250)",
            ),
            (
                "recv (250,000 ns of CPU time a token, 16.67%)",
                "rgb(155,155,250)",
            ),
            (
                "send (250,000 ns of CPU time a token, 16.67%)",
                "rgb(250,155,155)",
            ),
            // It is there alone: all that it calls is more.
            ("b (750,000 ns of CPU time a token, 50.00%)", "rgb(250,"),
        ] {
            let title = format!("<title>{frame}</title>");
            let at = svg.find(&title).unwrap_or_else(|| panic!("{frame}: {svg}"));
            let fill = svg[at..].split("fill=\"").nth(1).unwrap();
            assert!(fill.starts_with(colour), "{frame}: {}", &fill[..30]);
        }
        assert!(!svg.contains("gone"));
    }

    #[test]
    fn a_sample_of_a_fraction_of_a_nanosecond_is_as_wide_as_one_of_many() {
        let stacks = folded::parse("t;a 3\nt;b 97\n").unwrap();
        for (sample_ns, said) in [
            (2.6, "a (8 ns of CPU time a token, "),
            (0.4, "a (1,200 ps of CPU time a token, 3.00%)"),
            (0.001, "a (3 ps of CPU time a token, 3.00%)"),
            (1e-9, "a (0 ps of CPU time a token, "),
        ] {
            let side = Side {
                period_ns: sample_ns,
                ..side(&stacks, 1.0)
            };
            let svg = difference_svg(&side, &side, &title()).unwrap();
            let svg = String::from_utf8(svg).unwrap();
            assert!(svg.contains(said), "{said}: {svg}");
            let a = svg.split(said).nth(1).unwrap();
            let a = &a[..a.find("</g>").unwrap()];
            assert!(
                a.contains("width=\"3.0000%\"") && a.contains("fg:w=\"3\""),
                "{a}"
            );
        }
        for period_ns in [0.0, f64::NAN, f64::INFINITY] {
            let side = Side {
                period_ns,
                ..side(&stacks, 1.0)
            };
            let drawn = difference_svg(&side, &side, &title());
            assert!(
                matches!(drawn, Err(FlamegraphError::Timeless)),
                "{period_ns}"
            );
        }
    }

    #[test]
    fn what_sampling_makes_of_nothing_has_no_colour() {
        let before = folded::parse("t;decode 100\nt;send 3\n").unwrap();
        let after = folded::parse("t;decode 110\nt;recv 3\n").unwrap();
        let svg = difference_svg(&side(&before, 1.0), &side(&after, 1.0), &title()).unwrap();
        let svg = String::from_utf8(svg).unwrap();
        assert_eq!(svg.matches("rgb(250,250,250)").count(), 3, "{svg}");
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

//! Stop strings: text is held back while it may still become one, and cut where it does.

/// Watches a stream of text for the first of several strings.
#[derive(Debug, Default)]
pub(super) struct StopFilter {
    stops: Vec<String>,
    /// Text that may be the beginning of a stop string.
    held: String,
}

impl StopFilter {
    /// `stops` must not be empty strings.
    pub(super) fn new(stops: Vec<String>) -> Self {
        Self {
            stops,
            held: String::new(),
        }
    }

    /// Takes the next piece and appends what can be shown to `out`. `true` where a stop string came: the text ends
    /// just before it.
    pub(super) fn push(&mut self, piece: &str, out: &mut String) -> bool {
        if self.stops.is_empty() {
            out.push_str(piece);
            return false;
        }
        self.held.push_str(piece);
        if let Some((_, start)) = first_stop(&self.stops, &self.held) {
            out.push_str(&self.held[..start]);
            self.held.clear();
            return true;
        }
        let shown = self.held.len() - self.possible_start();
        out.push_str(&self.held[..shown]);
        self.held.drain(..shown);
        false
    }

    /// The end of the stream: what was held back is text after all.
    pub(super) fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }

    /// The length of the longest end of the held text that a stop string begins with.
    fn possible_start(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest.saturating_sub(1));
        (from..self.held.len())
            .filter(|&start| self.held.is_char_boundary(start))
            .find(|&start| {
                self.stops
                    .iter()
                    .any(|stop| stop.starts_with(&self.held[start..]))
            })
            .map_or(0, |start| self.held.len() - start)
    }
}

/// Where the stop string that is whole first ends and starts: the same however the text was cut.
fn first_stop(stops: &[String], text: &str) -> Option<(usize, usize)> {
    let ends = stops.iter().filter_map(|stop| {
        let start = text.find(stop)?;
        Some((start + stop.len(), start))
    });
    ends.min()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is shown after each piece, and whether a stop string came.
    fn check(stops: &[&str], pieces: &[&str], shown: &[&str], stopped: bool) {
        let mut filter = StopFilter::new(stops.iter().map(|&stop| stop.to_owned()).collect());
        let mut got = Vec::new();
        let mut came = false;
        for piece in pieces {
            let mut out = String::new();
            came = filter.push(piece, &mut out);
            got.push(out);
            if came {
                break;
            }
        }
        if !came {
            let mut out = String::new();
            filter.finish(&mut out);
            got.push(out);
        }
        assert_eq!(got, shown, "{stops:?} {pieces:?}");
        assert_eq!(came, stopped, "{stops:?} {pieces:?}");
    }

    #[test]
    fn text_is_held_only_while_it_may_be_a_stop() {
        check(&[], &["a", "b"], &["a", "b", ""], false);
        check(&["END"], &["a", "b"], &["a", "b", ""], false);
        check(&["END"], &["xE", "N", "D!"], &["x", "", ""], true);
        check(&["END"], &["xE", "N", "o"], &["x", "", "ENo", ""], false);
        check(&["END"], &["xEN"], &["x", "EN"], false);
        check(&["aab"], &["aaab"], &["a"], true);
        check(&["aab"], &["aa", "a", "b"], &["", "a", ""], true);
    }

    #[test]
    fn the_first_of_several_cuts() {
        check(&["z", "b"], &["abz"], &["a"], true);
        check(&["bc", "abcd"], &["abcd"], &["a"], true);
        check(&["c", "bc"], &["abc"], &["a"], true);
        check(
            &["\n\n", "é!"],
            &["a\n", "b\u{e9}", "c", "é", "!"],
            &["a", "\nb", "éc", "", ""],
            true,
        );
    }

    proptest! {
        #[test]
        fn any_cut_shows_the_text_before_the_first_stop(
            pieces in prop::collection::vec("[abé]{0,4}", 0..12),
            stops in prop::collection::vec("[abé]{1,3}", 0..4),
        ) {
            let whole = pieces.concat();
            let first = first_stop(&stops, &whole);
            let mut filter = StopFilter::new(stops);
            let mut shown = String::new();
            let stopped = pieces.iter().any(|piece| filter.push(piece, &mut shown));
            if !stopped {
                filter.finish(&mut shown);
            }
            prop_assert_eq!(stopped, first.is_some());
            prop_assert_eq!(shown, &whole[..first.map_or(whole.len(), |(_, start)| start)]);
        }
    }
}

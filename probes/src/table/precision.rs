//! What a run says that went on until its intervals were narrow: whether they are, and which is the widest.

use crate::precision::Precision;

use super::wrap::wrapped;

/// One sentence, in lines.
pub(super) fn told(precision: &Precision, width: usize) -> String {
    let points = |share: f64| format!("{:.1} points", share * 100.0);
    let outcome = match precision.reached {
        true => "reached",
        false => "not reached: the run ended before",
    };
    let widest = precision.widest.as_ref().map_or(String::new(), |widest| {
        let reach = widest.half_width.map_or("has no end".to_owned(), |reach| {
            format!("reaches {}", points(reach))
        });
        format!(
            "; the widest, {} p50 of {} against {}, {reach}",
            widest.metric, widest.row, widest.baseline
        )
    });
    let line = format!(
        "Until every interval of the changes above reaches at most {} to either side: {outcome}, with {} blocks and {} looks \
         at them{widest}.",
        points(precision.until.half_width),
        precision.blocks,
        precision.looks
    );
    wrapped(&line, width, "")
}

#[cfg(test)]
mod tests {
    use crate::metric::Metric;
    use crate::precision::{Until, Widest};
    use crate::row::Row;

    use super::*;

    #[test]
    fn it_says_which_of_both_ended_the_run() {
        let mut precision = Precision {
            until: Until {
                half_width: 0.02,
                fewest_blocks: 20,
            },
            reached: true,
            blocks: 35,
            looks: 4,
            widest: Some(Widest {
                row: Row::HTTP_FULL,
                baseline: Row::HTTP_COLD_FULL,
                metric: Metric::Ttft,
                half_width: Some(0.0191),
            }),
        };
        assert_eq!(
            told(&precision, 1_000),
            "Until every interval of the changes above reaches at most 2.0 points to either side: reached, with 35 blocks and 4 \
             looks at them; the widest, ttft p50 of http/full against http-cold/full, reaches 1.9 points.\n"
        );
        precision.reached = false;
        precision.widest = None;
        assert!(told(&precision, 1_000).contains("not reached: the run ended before, with 35"));
    }
}

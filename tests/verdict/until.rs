//! `compare --until`: a run that goes on until its intervals are narrow, or its time is over.

use crate::stage::{Told, scripted, told};
use crate::support::stdout;

/// Two rows of quick exchanges, over a proxy that is started for them.
#[track_caller]
fn until(more: &[&str]) -> Told {
    let backend = scripted("ttft=4ms,gap=1ms");
    let words = "compare --no-direct --channels http-cold,http --state full --turns 1 --isl 48 --osl 4 --model m --url";
    let url = backend.url();
    let mut args = vec![url.as_str()];
    args.extend(more);
    told(words, &args)
}

#[test]
fn a_run_ends_as_soon_as_its_intervals_are_narrow() {
    let narrow = until(&["--until", "100%", "--duration", "60s"]);
    let precision = &narrow.report["precision"];
    assert_eq!(precision["reached"], true, "{precision}");
    assert!(precision["widest"]["half_width"].as_f64().unwrap() <= 1.0);
    let blocks = precision["blocks"].as_u64().unwrap();
    assert!(blocks >= 20, "{precision}");
    // It ended at a look: 20 blocks, or a fifth more than at the one before.
    assert!(
        [20, 24, 29, 35, 42, 51, 62].contains(&blocks),
        "{precision}"
    );
    narrow.assert_silent("few_blocks");
    let said = stdout(&narrow.output);
    assert!(said.contains("to either side: reached, with"), "{said}");
}

#[test]
fn a_run_whose_time_is_over_says_that_its_intervals_are_not_narrow() {
    let over = until(&["--until", "0.01%", "--duration", "3s"]);
    let precision = &over.report["precision"];
    assert_eq!(precision["reached"], false, "{precision}");
    let said = stdout(&over.output).replace('\n', " ");
    assert!(said.contains("not reached: the run ended before"), "{said}");
}

//! Rows that did not do the same work, and tokens that have no stamp of their own.

use crate::stage::{compared, scripted, told};
use crate::support::{Proxy, assert_code};

/// Twelve exchanges over HTTP/1.1.
const LOAD: &str = "load --num-prompts 12 --concurrency 1 --osl 24 --isl 48 --model m --url";

#[test]
fn prompts_outputs_and_warm_caches_that_differ() {
    // The proxy asks a backend that finds most of the prompt in its cache, counts it otherwise and says less.
    let cold = scripted("input=1000,cached=16,tokens=24");
    let warm = scripted("input=1200,cached=512,tokens=20");
    let proxy = Proxy::start(&warm.url());
    let unequal = compared(&cold.url(), &proxy.listen, &proxy.admin);
    let cached = "direct/full has 16.0, http/full has 512.0, of 1200.0 in the prompt";
    unequal.assert_warns("cached_tokens_differ", &[cached]);
    let input = "direct/full has 1000.0, http/full has 1200.0";
    unequal.assert_warns("input_tokens_differ", &[input]);
    let output = "http/full has 20.0, direct/full has 24.0";
    unequal.assert_warns("output_tokens_differ", &[output]);
    unequal.assert_warns("other_upstream", &[&cold.url(), &warm.url()]);
}

#[test]
fn events_of_several_tokens_and_writes_of_several_events() {
    let backend = scripted("ttft=50ms,gap=2ms,tokens_per_event=4");
    let events = told(LOAD, &[&backend.url()]);
    let figure = "tokens of http/full share a stamp (4.0 a delta";
    events.assert_warns("coalesced_tokens", &[figure]);

    let backend = scripted("ttft=50ms,gap=2ms,events_per_write=4");
    for stamp in ["user", "kernel"] {
        let writes = told(LOAD, &[&backend.url(), "--stamp", stamp]);
        let figure = "tokens of http/full share a stamp (1.0 a delta";
        writes.assert_warns("coalesced_tokens", &[figure]);
    }
}

#[test]
fn who_accepts_an_untrusted_run_gets_exit_code_zero() {
    let backend = scripted("ttft=50ms,gap=2ms,tokens_per_event=4");
    let accepted = told(LOAD, &[&backend.url(), "--allow-untrusted"]);
    assert_eq!(accepted.report["verdict"]["trusted"], false);
    assert_code(&accepted.output, 0);
}

#[test]
fn a_run_of_which_nothing_is_suspected_is_trusted() {
    // Figures that a busy machine does not move by a tenth.
    let backend = scripted("ttft=250ms,gap=10ms");
    let load = LOAD.replace("--num-prompts 12 ", "--num-prompts 4 ");
    let sound = told(&load, &[&backend.url()]);
    assert_eq!(sound.codes(), [""; 0]);
    assert_eq!(sound.report["verdict"]["trusted"], true);
    assert_code(&sound.output, 0);
}

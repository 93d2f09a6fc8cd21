//! Exchanges that fail, or whose other half is not found.

use crate::stage::{compared, scripted, told};
use crate::support::{Proxy, closed_port, failing_server};

#[test]
fn a_tenth_of_the_exchanges_failed() {
    // Two requests calibrate, one warms up.
    let server = format!("http://{}", failing_server(3 + 18));
    let words = "load --num-prompts 20 --concurrency 1 --model m --url";
    let failing = told(words, &[&server]);
    let figure = "2 of 20 exchanges of http/full went wrong (10.0 %)";
    failing.assert_warns("errors", &[figure]);
}

#[test]
fn a_row_whose_every_exchange_failed() {
    let backend = scripted("ttft=2ms,gap=1ms");
    let proxy = Proxy::start(&format!("http://{}", closed_port()));
    let dead = compared(&backend.url(), &proxy.listen, &proxy.admin);
    let figure = "none of the 3 exchanges of http/full completed (3 server_error)";
    dead.assert_warns("nothing_completed", &[figure]);
}

#[test]
fn arrivals_that_never_had_their_turn() {
    // A reply takes more than 40 ms, and one is due every 5 ms, for half a second in each of a row's two turns.
    let backend = scripted("ttft=20ms,gap=1ms");
    let words = "compare --channels http-cold,http --state full --no-direct --blocks 2 --duration 2s --request-rate 200 \
                 --arrival-pattern constant --concurrency 1 --turns 1 --isl 48 --osl 24 --model m --url";
    let late = told(words, &[&backend.url()]);
    for row in ["http-cold/full", "http/full"] {
        let figure = format!("of the 200 arrivals of {row} that fell due never started (");
        let message = late.assert_warns("arrivals_not_started", &[&figure]);
        let count = message.split(' ').next().and_then(|it| it.parse().ok());
        assert!(count > Some(100), "{message}");
    }
    // What is left of such turns stands for no whole one.
    late.assert_warns("few_blocks", &["ran in 0 blocks"]);
    for row in late.report["channels"].as_array().expect("rows") {
        assert!(row["completed"].as_u64() > Some(0), "{row}");
        assert!(row["versus"].as_array().is_none_or(Vec::is_empty), "{row}");
    }
}

#[test]
fn another_proxys_stamps() {
    let backend = scripted("ttft=2ms,gap=1ms");
    let carries = Proxy::start(&backend.url());
    let asked = Proxy::start(&backend.url());
    let strange = compared(&backend.url(), &carries.listen, &asked.admin);
    let figure =
        "12 of 12 exchanges of http/full have no partner at the proxy (12 without a record";
    strange.assert_warns("unjoined", &[figure]);
}

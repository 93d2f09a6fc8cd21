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
fn another_proxys_stamps() {
    let backend = scripted("ttft=2ms,gap=1ms");
    let carries = Proxy::start(&backend.url());
    let asked = Proxy::start(&backend.url());
    let strange = compared(&backend.url(), &carries.listen, &asked.admin);
    let figure =
        "12 of 12 exchanges of http/full have no partner at the proxy (12 without a record";
    strange.assert_warns("unjoined", &[figure]);
}

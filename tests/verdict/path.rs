//! What lies between the ends: distance on the wrong side of the proxy, a buffer, small writes that wait.

use std::time::Duration;

use crate::relays::{Trouble, relay};
use crate::stage::{compared_over, may_link, scripted, told, told_by};
use crate::support::Proxy;

/// A comparison for which a proxy is started.
const COMPARE: &str =
    "compare --channels http --state full --blocks 2 --turns 1 --isl 48 --osl 4 --model m --url";

#[test]
fn a_backend_far_behind_a_proxy_that_is_near() {
    let backend = scripted("ttft=2ms,gap=1ms");
    told(COMPARE, &[&backend.url()]).assert_silent("topology");

    // A tunnel: it takes connections here, and what it carries goes a long way.
    let tunnel = relay(&backend.url(), Trouble::Far(Duration::from_millis(20)));
    let far = told(COMPARE, &[&tunnel]);
    far.assert_warns(
        "topology",
        &[&tunnel, " ms", "the long one is not compared"],
    );
}

#[test]
fn a_backend_in_another_network_behind_a_long_link() {
    if !may_link() {
        return;
    }
    let backend = scripted("ttft=2ms,gap=1ms");
    let port = backend.address().port().to_string();
    // Client and proxy are in one network, the backend in the other.
    let script = format!(r#""$0" "$@" --url http://$TOKENLAG_LINK_SERVER:{port}"#);
    let this = env!("CARGO_BIN_EXE_tokenlag");
    let link = ["link", "--rtt", "40ms", "--forward", &port, "--"];
    let by: Vec<&str> = link
        .into_iter()
        .chain(["sh", "-c", &script, this])
        .collect();
    let compare = COMPARE.trim_end_matches(" --url");
    let far = told_by(&by, compare, &[]);
    let figures = [
        "the round trip to the proxy at http://127.0.0.1:",
        " takes 4",
    ];
    far.assert_warns("topology", &figures);
}

#[test]
fn a_backend_far_behind_an_emulated_link_that_is_short() {
    if !may_link() {
        return;
    }
    let backend = scripted("ttft=2ms,gap=1ms");
    let linked = COMPARE.replace("compare ", "compare --link rtt=1ms ");
    told(&linked, &[&backend.url()]).assert_silent("topology");
    let tunnel = relay(&backend.url(), Trouble::Far(Duration::from_millis(20)));
    let far = told(&linked, &[&tunnel]);
    far.assert_warns("topology", &[&tunnel, " takes 1.000 ms, and its own"]);
}

#[test]
fn long_requests_over_a_long_way_wait_for_round_trips_and_for_no_hop() {
    if !may_link() {
        return;
    }
    let backend = scripted("ttft=2ms,gap=1ms");
    let proxy = Proxy::start(&backend.url());
    let port = |url: &str| url.rsplit(':').next().unwrap_or_default().to_owned();
    let [to_backend, listen, admin] =
        [&backend.url(), &proxy.listen, &proxy.admin].map(|url| port(url));
    let forward = [
        "--forward",
        &to_backend,
        "--forward",
        &listen,
        "--forward",
        &admin,
    ];
    let there = "http://$TOKENLAG_LINK_SERVER";
    let script = format!(
        r#""$0" "$@" --url {there}:{to_backend} --proxy {there}:{listen} --proxy-admin {there}:{admin}"#
    );
    let this = env!("CARGO_BIN_EXE_tokenlag");
    let link = ["link", "--rtt", "40ms"].into_iter().chain(forward);
    let by: Vec<&str> = link.chain(["--", "sh", "-c", &script, this]).collect();
    let words = "compare --no-direct --channels http-cold --state full --blocks 3 --turns 2 --isl 8192 --osl 4 --model m";
    let slow = told_by(&by, words, &[]);
    slow.assert_silent("nagle");
    let row = &slow.report["channels"][0];
    assert_eq!(row["completed"], 6);
    // The way there takes 20 ms, and a request that does not fit into the first window a round trip more.
    let request = row["metrics"]["request_transfer"]["p50"].as_u64().unwrap();
    assert!(request >= 55_000_000, "{request}");
}

#[test]
fn a_proxy_at_the_far_end_is_where_it_belongs() {
    let backend = scripted("ttft=2ms,gap=1ms");
    let far = compared_over(&backend, |listen| {
        relay(listen, Trouble::Far(Duration::from_millis(10)))
    });
    far.assert_silent("topology");
    // A long way is no buffer, and no small write that waits.
    far.assert_silent("buffering_hop");
    far.assert_silent("nagle");
}

#[test]
fn a_hop_that_collects_what_passes() {
    let backend = scripted("ttft=10ms,gap=4ms");
    let plain = compared_over(&backend, |listen| format!("http://{listen}"));
    plain.assert_silent("buffering_hop");
    let buffered = compared_over(&backend, |listen| relay(listen, Trouble::Buffers(2_048)));
    let figures = ["http/full buffers", "% of the gaps", "the model's gap is"];
    buffered.assert_warns("buffering_hop", &figures);
}

#[test]
fn a_hop_whose_small_writes_wait_for_acknowledgements() {
    let backend = scripted("ttft=1ms,gap=4ms");
    let plain = compared_over(&backend, |listen| format!("http://{listen}"));
    plain.assert_silent("nagle");
    let waiting = compared_over(&backend, |listen| relay(listen, Trouble::Nagle));
    let figures = ["the path of http/full", "of 12 exchanges", " ms longer"];
    waiting.assert_warns("nagle", &figures);
}

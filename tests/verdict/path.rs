//! What lies between the ends: distance on the wrong side of the proxy, a buffer, small writes that wait.

use std::time::Duration;

use crate::relays::{Trouble, relay};
use crate::stage::{compared_over, scripted, told, told_by};
use crate::support::{run, stderr};

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
    let probe = run(&["link", "--rtt", "40ms", "--", "true"]);
    if !probe.status.success() {
        let why = stderr(&probe);
        assert!(why.contains("CAP_NET_ADMIN"), "{why}");
        eprintln!("not tested: {}", why.trim());
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

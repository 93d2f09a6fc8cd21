//! Rows through the proxy: the upstream is asked the same by all of them, and the two ends join.

mod support;

use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use support::{SEED, backend, check_order, closed, lane, proxy, run, shared};
use tokenlag_channel::tls::ClientTls;
use tokenlag_loadgen::prompt::nonce;
use tokenlag_loadgen::{BaseUrl, Lane, Phase};
use tokenlag_probes::{State, Transport};
use tokenlag_proxy::Addresses;
use tokio::task::LocalSet;

fn rows(addresses: Addresses, certificate: &[u8]) -> Vec<Rc<Lane>> {
    let base = BaseUrl::of("127.0.0.1", addresses.listen.port());
    let mut lanes = Vec::new();
    let channels = [
        Transport::HttpCold,
        Transport::Http,
        Transport::Http2,
        Transport::Http3,
        Transport::Ws,
        Transport::Quic,
    ];
    let states = [State::Full, State::Incremental];
    for (transport, state) in channels
        .iter()
        .flat_map(|&channel| states.map(|state| (channel, state)))
    {
        let mut lane = lane(lanes.len() as u32, transport, state, &base);
        if let (true, Some(quic)) = (transport.is_encrypted_always(), addresses.quic) {
            let endpoint = lane.endpoint.clone();
            let tls = ClientTls::trusting(certificate).unwrap();
            let endpoint = endpoint
                .at("127.0.0.1".to_owned(), quic.port())
                .over_tls(tls);
            lane = Rc::new(Lane {
                endpoint,
                ..(*lane).clone()
            });
        }
        lanes.push(lane);
    }
    lanes
}

/// A request's body, without what no two requests share: the nonce, and the numbers that the backend gives its items.
fn asked(body: &[u8], nonce: &str) -> Value {
    let text = std::str::from_utf8(body).unwrap().replace(nonce, "");
    let mut body: Value = serde_json::from_str(&text).unwrap();
    let items = body["input"]
        .as_array_mut()
        .expect("the input is a list of items");
    for id in items.iter_mut().filter_map(|item| item.get_mut("id")) {
        *id = "any".into();
    }
    body
}

#[tokio::test(flavor = "current_thread")]
async fn the_upstream_is_asked_the_same_by_every_row() {
    let backend = backend();
    LocalSet::new()
        .run_until(async {
            let (addresses, certificate) = proxy(&backend);
            let nonce = nonce(SEED, Phase::Measured, 0);
            let mut rows_asked = Vec::new();
            for lane in rows(addresses, &certificate) {
                let (shared, _stopper) = shared(3, Duration::from_secs(10));
                let end = run(&shared, &lane, closed(1, 3)).await;
                assert_eq!(end.completed(), 3, "{}: {:?}", lane.row, end.troubles);
                end.exchanges.iter().for_each(check_order);
                let requests = backend.take_requests();
                let posts = requests.iter().filter(|request| request.method == "POST");
                let bodies: Vec<_> = posts.map(|post| asked(&post.body, &nonce)).collect();
                rows_asked.push((lane.row, bodies));
            }
            let (_, first) = &rows_asked[0];
            let items = |body: &Value| body["input"].as_array().map(Vec::len);
            let lengths: Vec<_> = first.iter().map(items).collect();
            assert_eq!(lengths, [Some(1), Some(3), Some(5)]);
            for (row, bodies) in &rows_asked {
                assert_eq!(bodies, first, "{row}");
            }
        })
        .await;
}

#[tokio::test(flavor = "current_thread")]
async fn when_a_cell_is_over_its_sockets_have_booked_what_they_did() {
    let backend = backend();
    LocalSet::new()
        .run_until(async {
            let (addresses, certificate) = proxy(&backend);
            let mut rows = rows(addresses, &certificate);
            rows.retain(|lane| !lane.row.transport.is_encrypted_always());
            for lane in rows {
                let (shared, _stopper) = shared(1, Duration::from_secs(10));
                let end = run(&shared, &lane, closed(4, 1)).await;
                assert_eq!(end.completed(), 4, "{}: {:?}", lane.row, end.troubles);
                let (booked, counted) =
                    (lane.endpoint.dial.stamping.watch().so_far(), end.counters);
                // Farewells come after what is counted.
                let all = booked.reads >= counted.reads && booked.writes >= counted.writes;
                assert!(all && counted.reads > 0, "{}: {booked:?}", lane.row);
                assert!(booked.packets_sent > 0, "{}: {booked:?}", lane.row);
            }
        })
        .await;
}

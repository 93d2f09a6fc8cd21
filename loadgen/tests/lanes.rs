//! Sessions that share one WebSocket through a real proxy, each in a lane of its own: in clear, inside TLS, and where exchanges
//! run out of time, the run is stopped, or the connection is cut.

mod support;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use support::{backend, check_order, closed, lane, proxy, run, shared};
use tokenlag_channel::tls::ClientTls;
use tokenlag_loadgen::warmup::warm;
use tokenlag_loadgen::{BaseUrl, CellPlan, Connections, Lane};
use tokenlag_probes::{Exchange, FailureKind, Outcome, State, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

/// A row over WebSocket to `port`.
fn row(port: u16, state: State) -> Rc<Lane> {
    let base = BaseUrl::of("127.0.0.1", port);
    lane(0, Transport::Ws, state, &base)
}

/// So many sessions, all side by side on what they share.
fn side_by_side(sessions: u64, turns: u32) -> CellPlan {
    CellPlan {
        concurrency: sessions as usize,
        connections: Connections::Shared,
        ..closed(sessions, turns)
    }
}

/// Runs `test` with all that it starts.
async fn within(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

/// The proxy's records, once there are so many.
async fn booked(admin: SocketAddr, count: usize) -> Vec<Value> {
    let asked = format!("GET /exchanges HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    loop {
        let mut stream = TcpStream::connect(admin).await.unwrap();
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let lines = body.lines().map(|line| serde_json::from_str(line).unwrap());
        let records: Vec<Value> = lines
            .filter(|line: &Value| line["channel"].is_string())
            .collect();
        if records.len() >= count {
            return records;
        }
    }
}

/// From the first token to the last.
fn span(exchange: &Exchange) -> (u64, u64) {
    let at = |mark: Option<&tokenlag_probes::TokenMark>| mark.unwrap().at.as_nanos();
    (at(exchange.tokens.first()), at(exchange.tokens.last()))
}

#[tokio::test(flavor = "current_thread")]
async fn eight_sessions_share_one_connection_in_clear_and_inside_tls() {
    for tls in [false, true] {
        for state in [State::Full, State::Incremental] {
            let backend = backend();
            within(async {
                let (addresses, certificate) = proxy(&backend);
                let mut row = row(addresses.listen.port(), state);
                if tls {
                    let trust = ClientTls::trusting(&certificate).unwrap();
                    row = Rc::new(Lane {
                        endpoint: row.endpoint.clone().over_tls(trust),
                        ..(*row).clone()
                    });
                }
                let (shared, _stopper) = shared(3, PATIENCE);
                let end = run(&shared, &row, side_by_side(8, 3)).await;
                assert_eq!(end.completed(), 24, "{state}: {:?}", end.troubles);
                assert_eq!(end.counters.connections_opened, 1);
                let more = end.counters.bytes_received > end.counters.channel_bytes_received;
                assert_eq!(more, tls);
                for exchange in &end.exchanges {
                    check_order(exchange);
                    assert_eq!(exchange.tokens.len(), 20);
                    assert_eq!(exchange.usage.map(|usage| usage.output), Some(20));
                    let reads: Vec<_> = exchange.tokens.iter().map(|mark| mark.chunk).collect();
                    assert!(
                        reads.is_sorted() && reads.last() < Some(&exchange.chunks),
                        "{reads:?}"
                    );
                    let emitted = backend.emissions(exchange.trace).unwrap();
                    let marks = exchange.tokens.iter().zip(emitted);
                    for (mark, at) in marks {
                        assert!(mark.at >= at, "no token is read before it is written");
                    }
                }
                let spans: Vec<_> = end.exchanges.iter().map(span).collect();
                let overlaps = |&(from, to): &(u64, u64)| {
                    let others = spans
                        .iter()
                        .filter(|&&(begun, ended)| begun < to && from < ended);
                    others.count() > 1
                };
                assert!(
                    spans.iter().any(overlaps),
                    "lanes run side by side: {spans:?}"
                );

                let booked = timeout(PATIENCE, booked(addresses.admin, 24))
                    .await
                    .unwrap();
                assert_eq!(booked.len(), 24);
                for record in &booked {
                    assert_eq!(record["channel"], "ws", "{record}");
                    assert_eq!(record["out_token"].as_array().unwrap().len(), 20);
                    let trace = record["trace"].as_str().unwrap();
                    let is_ours = |it: &Exchange| it.trace.to_string() == trace;
                    assert!(end.exchanges.iter().any(is_ours), "{record}");
                }
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_warm_up_shares_connections_where_the_cells_will() {
    let backend = backend();
    within(async {
        let (addresses, _) = proxy(&backend);
        let rows = [row(addresses.listen.port(), State::Full)];
        let (shared, _stopper) = shared(1, PATIENCE);
        for (plan, connections) in [(side_by_side(4, 1), 1), (closed(4, 1), 4)] {
            let warmed = warm(&shared, &rows, &plan, 4, 0).await;
            let [row] = &warmed[..] else {
                panic!("{warmed:?}")
            };
            assert_eq!((row.completed, row.connections), (4, connections));
        }
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn without_sharing_each_session_has_a_connection() {
    let backend = backend();
    within(async {
        let (addresses, _) = proxy(&backend);
        let row = row(addresses.listen.port(), State::Full);
        let (shared, _stopper) = shared(1, PATIENCE);
        let end = run(&shared, &row, closed(4, 1)).await;
        assert_eq!((end.completed(), end.counters.connections_opened), (4, 4));
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn an_exchange_that_runs_out_of_time_does_not_touch_the_others() {
    let backend = backend();
    backend.set_script("ttft=1ms,gap=0,stall=5:1m".parse().unwrap());
    within(async {
        let (addresses, _) = proxy(&backend);
        let row = row(addresses.listen.port(), State::Full);
        let (shared, _stopper) = shared(1, Duration::from_secs(1));
        let plan = CellPlan {
            sessions: Some(8),
            ..side_by_side(2, 1)
        };
        let going_on = async {
            while backend.requests().len() < 2 {
                yield_now().await;
            }
            backend.set_script("ttft=1ms,gap=0".parse().unwrap());
        };
        let (end, ()) = tokio::join!(run(&shared, &row, plan), going_on);
        assert_eq!(
            (end.completed(), end.exchanges.len()),
            (6, 8),
            "{:?}",
            end.troubles
        );
        let late = end
            .exchanges
            .iter()
            .filter(|it| it.outcome != Outcome::Complete);
        for exchange in late {
            assert_eq!(exchange.outcome, Outcome::Failed(FailureKind::Timeout));
        }
        assert_eq!(end.counters.connections_opened, 1);
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_stop_ends_all_lanes_at_once() {
    let backend = backend();
    backend.set_script("ttft=1ms,gap=0,stall=5:1m".parse().unwrap());
    within(async {
        let (addresses, _) = proxy(&backend);
        let row = row(addresses.listen.port(), State::Full);
        let (shared, stopper) = shared(1, PATIENCE);
        let stopping = async {
            while backend.requests().len() < 8 {
                yield_now().await;
            }
            stopper.stop();
        };
        let (end, ()) = tokio::join!(run(&shared, &row, side_by_side(8, 1)), stopping);
        assert_eq!((end.cancelled, end.exchanges.len()), (8, 0));
        assert_eq!(end.counters.connections_opened, 1);
    })
    .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_connection_that_is_cut_fails_every_lane_with_one_error() {
    let backend = backend();
    backend.set_script("ttft=1ms,gap=0,stall=5:1m".parse().unwrap());
    within(async {
        let (addresses, _) = proxy(&backend);
        // What is between the two can be cut.
        let between = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let row = row(between.local_addr().unwrap().port(), State::Full);
        let relaying = spawn_local(async move {
            let (mut near, _) = between.accept().await.unwrap();
            let mut far = TcpStream::connect(addresses.listen).await.unwrap();
            let _ = copy_bidirectional(&mut near, &mut far).await;
        });
        let (shared, _stopper) = shared(3, PATIENCE);
        let cutting = async {
            while backend.requests().len() < 8 {
                yield_now().await;
            }
            relaying.abort();
        };
        let (end, ()) = tokio::join!(run(&shared, &row, side_by_side(8, 3)), cutting);
        assert_eq!((end.exchanges.len(), end.skipped), (8, 16));
        for exchange in &end.exchanges {
            assert_eq!(
                exchange.outcome,
                Outcome::Failed(FailureKind::ConnectionLost)
            );
        }
        let told: Vec<_> = end.troubles.iter().collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0]
                .0
                .contains("closed the connection before the reply ended"),
            "{told:?}"
        );
        assert_eq!(*told[0].1, 8);
    })
    .await;
}

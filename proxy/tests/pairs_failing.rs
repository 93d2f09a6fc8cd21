//! A pair of sidecars of which something fails: what is cut off looks cut off, whatever lies between.

mod pair;
mod stack;

use std::net::SocketAddr;
use std::time::Duration;

use pair::{APPLICATION, LEGS, Pair, script};
use stack::{Stack, create, run, trace};
use tokenlag_channel::ChannelError;
use tokenlag_channel::tls::{self, Identity};
use tokenlag_probes::{FailureKind, Outcome};
use tokenlag_proxy::{Patience, ProxyOptions};
use tokenlag_scripted::ScriptedBackend;

#[test]
fn a_reply_that_the_backend_cuts_off_looks_cut_off() {
    for leg in LEGS {
        let pair = Pair::start(leg, "ttft=5ms,gap=2ms,close=5");
        run(async {
            let trace = trace(1);
            let error = pair.ask(trace, &create("x", 20)).await.unwrap_err();
            let label = format!("{} {}", leg.0, leg.1);
            assert!(
                matches!(error, ChannelError::Lost { .. }),
                "{label}: {error}"
            );
            let near = pair.near.record(trace).await;
            assert!(
                matches!(near.outcome, Outcome::Failed(_)),
                "{label}: {:?}",
                near.outcome
            );
            assert_eq!(near.out_token.len(), 4, "{label}");
        });
    }
}

#[test]
fn a_sidecar_that_dies_cuts_its_replies_off() {
    for leg in LEGS {
        let far = {
            let backend = ScriptedBackend::start(script("ttft=5ms,gap=20ms")).unwrap();
            let upstream = backend.url().parse().unwrap();
            Stack::in_front_of(backend, upstream, |options| ProxyOptions {
                grace: Duration::ZERO,
                ..options
            })
        };
        let mut pair = Pair::between(leg, far, false, |options| ProxyOptions {
            patience: Patience {
                connect: Duration::from_millis(500),
                ..options.patience
            },
            ..options
        });
        let label = format!("{} {}", leg.0, leg.1);
        run(async {
            pair.ask(trace(1), &create("x", 2)).await.unwrap();
            let long = create("x", 500);
            let trace = trace(2);
            let channel = pair.near.channel(APPLICATION.0);
            let request = stack::request(APPLICATION, trace, &long, &[]).unwrap();
            let mut reply = channel.open(&request).await.unwrap();
            while reply.next().await.unwrap().is_some_and(|chunk| {
                !String::from_utf8_lossy(&chunk.bytes).contains("output_text.delta")
            }) {}
            let ended = pair.far.begin_shutdown();
            let error = loop {
                match reply.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("{label}: the reply ended as if it were whole"),
                    Err(error) => break error,
                }
            };
            assert!(
                matches!(error, ChannelError::Lost { .. }),
                "{label}: {error}"
            );
            ended.join().unwrap();
            let near = pair.near.record(trace).await;
            assert!(
                matches!(near.outcome, Outcome::Failed(_)),
                "{label}: {:?}",
                near.outcome
            );
        });
        // Nobody is there.
        run(async {
            let trace = trace(3);
            let seen = pair.ask(trace, &create("x", 2)).await.unwrap();
            assert!(matches!(seen.status, 502 | 504), "{label}: {}", seen.status);
            let near = pair.near.record(trace).await;
            let kind = match near.outcome {
                Outcome::Failed(kind) => kind,
                other => panic!("{label}: {other:?}"),
            };
            assert!(
                matches!(
                    kind,
                    FailureKind::Connect | FailureKind::ConnectionLost | FailureKind::Timeout
                ),
                "{label}: {kind:?}"
            );
        });
    }
}

#[test]
fn a_client_that_leaves_ends_the_exchange_at_the_backend() {
    for leg in LEGS {
        let pair = Pair::start(leg, "ttft=5ms,gap=10ms");
        run(async {
            let trace = trace(1);
            let channel = pair.near.channel(APPLICATION.0);
            let long = create("x", 1000);
            let request = stack::request(APPLICATION, trace, &long, &[]).unwrap();
            let mut reply = channel.open(&request).await.unwrap();
            reply.next().await.unwrap();
            drop(reply);
            let label = format!("{} {}", leg.0, leg.1);
            assert_eq!(
                pair.near.record(trace).await.outcome,
                Outcome::Cancelled,
                "{label}"
            );
            assert_eq!(
                pair.far.record(trace).await.outcome,
                Outcome::Cancelled,
                "{label}"
            );
        });
    }
}

#[test]
fn a_sidecar_that_came_back_is_asked_as_if_it_had_never_been_away() {
    for leg in LEGS {
        let quick = |options: ProxyOptions| ProxyOptions {
            grace: Duration::ZERO,
            ..options
        };
        let in_front_of = |listen: SocketAddr| {
            let backend = ScriptedBackend::start(script("gap=0ms")).unwrap();
            let upstream = backend.url().parse().unwrap();
            let identity = IDENTITY.with(Clone::clone);
            Stack::in_front_of(backend, upstream, |options| ProxyOptions {
                listen,
                quic: Some(listen),
                identity: Some(identity),
                ..quick(options)
            })
        };
        let mut pair = Pair::between(
            leg,
            in_front_of(([127, 0, 0, 1], 0).into()),
            false,
            |options| options,
        );
        let address = pair.far.addresses.listen;
        let label = format!("{} {}", leg.0, leg.1);
        // Several at once, so that several connections are idle as it goes.
        let ask_three = |pair: &Pair| {
            run(async {
                let body = create("x", 2);
                let asked = (0..3).map(|number| pair.ask(trace(number), &body));
                for seen in futures_util::future::join_all(asked).await {
                    assert_eq!(seen.unwrap().outcome, Some(Outcome::Complete), "{label}");
                }
            });
        };
        ask_three(&pair);
        pair.far.begin_shutdown().join().unwrap();
        pair.far = in_front_of(address);
        ask_three(&pair);
    }
}

thread_local! {
    /// Of a sidecar that comes back.
    static IDENTITY: Identity = tls::self_signed(&["localhost", "127.0.0.1"]).unwrap();
}

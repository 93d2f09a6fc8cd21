//! Servers of the UDP port that are gone without a word.

mod udp;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokenlag_channel::{Channel, ChannelError, Dial};
use tokenlag_probes::FailureKind;
use tokio::select;
use tokio::task::JoinSet;
use tokio::time::sleep;
use udp::raw::Relay;
use udp::{BOTH, Server, ask, request, run, server};

const ANY: &str = "127.0.0.1:0";

/// The way to a server by its relay. Whoever notices nothing waits for an hour.
fn by(relay: &Relay, server: &Server) -> Dial {
    let hour = Duration::from_secs(3600);
    Dial {
        port: relay.address.port(),
        connect_timeout: hour,
        idle_timeout: hour,
        ..server.dial.clone()
    }
}

fn address(server: &Server) -> SocketAddr {
    ([127, 0, 0, 1], server.dial.port).into()
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "closed ports are told on Linux")]
fn a_server_whose_port_is_closed_is_known_to_be_gone() {
    run(async {
        let server = server();
        for transport in BOTH {
            let relay = Relay::before(address(&server), ANY.parse().unwrap()).await;
            let channel = Channel::new(transport, by(&relay, &server));
            let request = request(transport, "/wait", "x");
            let mut running = channel.open(&request).await.unwrap();
            assert!(running.next().await.unwrap().is_some());
            let place = relay.address;
            drop(relay);
            // It is found out on the kept connection, and once more where another is made.
            let refused = channel.open(&request).await.unwrap_err();
            assert!(
                matches!(&refused, ChannelError::Connect { source, .. }
                    if source.kind() == ErrorKind::ConnectionRefused),
                "{transport}: {refused}"
            );
            let lost = running.next().await.unwrap_err();
            assert_eq!(lost.kind(), FailureKind::ConnectionLost, "{transport}");

            let _relay = Relay::before(address(&server), place).await;
            let (text, _) = ask(&channel, transport, "/", "y").await.unwrap();
            assert_eq!(text, "y", "{transport}");
        }
    });
}

#[test]
fn exchanges_go_elsewhere_where_a_server_acknowledges_nothing() {
    run(async {
        let server = server();
        for transport in BOTH {
            let relay = Relay::before(address(&server), ANY.parse().unwrap()).await;
            let channel = Channel::new(transport, by(&relay, &server));
            ask(&channel, transport, "/", "x").await.unwrap();
            let connections = server.seen.connections.get();
            relay.fall_silent();
            let mut asked = JoinSet::new();
            let answered = loop {
                let channel = channel.clone();
                asked.spawn_local(async move { ask(&channel, transport, "/", "y").await });
                select! {
                    answered = asked.join_next() => break answered,
                    () = sleep(Duration::from_millis(100)) => {}
                }
            };
            let (text, _) = answered.unwrap().unwrap().unwrap();
            assert_eq!(text, "y", "{transport}");
            assert!(!asked.is_empty(), "{transport}: those before it wait");
            assert_eq!(server.seen.connections.get(), connections + 1);
        }
    });
}

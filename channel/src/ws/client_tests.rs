//! What a client keeps of the messages that it was sent.

use std::net::Ipv4Addr;

use tokenlag_probes::{Encoding, TraceId, Transport};
use tokio::net::TcpListener;

use super::*;
use crate::Ask;
use crate::accept::{Accepted, Acceptor};
use crate::quic::DoorLimits;
use crate::tls::{ServerTls, self_signed};
use crate::ws::{Received, Upgrade};

const PATIENCE: Duration = Duration::from_secs(10);

fn server() -> Acceptor {
    let tls = ServerTls {
        identity: self_signed(&["localhost"]).unwrap(),
        resumption: false,
        early_data: false,
    };
    Acceptor::new(&tls, DoorLimits::default()).unwrap()
}

#[tokio::test]
async fn no_stamp_is_kept_of_a_message_that_was_handed_on() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(Accepted::Http1(mut connection)) = server().accept(stream).await else {
            panic!("no HTTP/1.1");
        };
        let incoming = connection.next_request().await.unwrap().unwrap();
        let upgrade = Upgrade::of(&incoming.head).unwrap();
        let socket = upgrade.grant(connection, [], PATIENCE).await.unwrap();
        for _ in 0..2 {
            assert!(matches!(socket.receive().await, Ok(Received::Text { .. })));
            let events = (0..3).map(|_| "{}".into());
            socket.send(events).await.unwrap();
        }
    };
    let asking = async {
        let client = Client::new(Dial {
            host: "127.0.0.1".to_owned(),
            port,
            path: "/v1/responses".to_owned(),
            headers: Vec::new(),
            connect_timeout: PATIENCE,
            idle_timeout: PATIENCE,
            tls: None,
            stamping: crate::Stamping::default(),
            nagle: false,
        });
        let ask = Ask {
            path: "/v1/responses",
            authority: "127.0.0.1",
            headers: &[],
            body: b"{}",
            trace: TraceId::from_bits(1),
            encoding: Encoding::Events,
        };
        let request = Request::render(Transport::Ws, &ask).unwrap();
        // The third event of the first reply is passed over before the second.
        for taken in [2, 3] {
            let mut reply = client.open(&request).await.unwrap();
            for _ in 0..taken {
                let chunk = reply.next().await.unwrap().unwrap();
                assert!(reply.head_at().unwrap() <= chunk.at);
            }
            if taken == 3 {
                let socket = reply.lent.socket.as_ref().unwrap();
                assert_eq!(socket.get_ref().untaken(), 0);
            }
            reply.finish();
        }
    };
    tokio::join!(serving, asking);
}

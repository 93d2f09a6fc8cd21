//! More sessions than may make handshakes over UDP at a time: who waits for its turn is late, and not slow.

mod support;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use support::{backend, check_order, closed, lane, proxy, run, shared};
use tokenlag_channel::tls::ClientTls;
use tokenlag_loadgen::{BaseUrl, CellPlan, Lane};
use tokenlag_probes::{Clock, MonoClock, Stamp, State, Transport};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local, yield_now};

const SESSIONS: usize = 100;
/// Handshakes that may be under way at a time.
const TURNS: usize = 64;

/// A way to a server over UDP on which nothing comes back until as many clients have begun as have a turn.
struct Held {
    /// Where it is dialled.
    address: SocketAddr,
    /// When it began to let datagrams through.
    opened: Rc<Cell<Option<Stamp>>>,
}

async fn held(server: SocketAddr) -> Held {
    let outside = Rc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = outside.local_addr().unwrap();
    let opened = Rc::new(Cell::new(None));
    let its = Rc::clone(&opened);
    spawn_local(async move {
        let open = Rc::new(Semaphore::new(0));
        let ways = RefCell::<HashMap<SocketAddr, Rc<UdpSocket>>>::default();
        let mut begun = false;
        let mut datagram = [0; 65_536];
        loop {
            let (length, client) = outside.recv_from(&mut datagram).await.unwrap();
            let known = ways.borrow().get(&client).cloned();
            let inside = match known {
                Some(inside) => inside,
                None => {
                    let inside = Rc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                    inside.connect(server).await.unwrap();
                    ways.borrow_mut().insert(client, Rc::clone(&inside));
                    spawn_local(back(
                        Rc::clone(&inside),
                        Rc::clone(&outside),
                        client,
                        Rc::clone(&open),
                    ));
                    inside
                }
            };
            inside.send(&datagram[..length]).await.unwrap();
            if ways.borrow().len() >= TURNS && !std::mem::replace(&mut begun, true) {
                let (its, open) = (Rc::clone(&its), Rc::clone(&open));
                spawn_local(async move {
                    // All sessions have begun by then, those too that have no turn.
                    for _ in 0..10_000 {
                        yield_now().await;
                    }
                    its.set(Some(MonoClock.now()));
                    open.close();
                });
            }
        }
    });
    Held { address, opened }
}

/// Brings a client what the server says, once the way is open.
async fn back(
    inside: Rc<UdpSocket>,
    outside: Rc<UdpSocket>,
    client: SocketAddr,
    open: Rc<Semaphore>,
) {
    let mut datagram = [0; 65_536];
    loop {
        let length = inside.recv(&mut datagram).await.unwrap();
        // It has no permits: whoever waits is told once it is closed.
        assert!(open.acquire().await.is_err());
        outside.send_to(&datagram[..length], client).await.unwrap();
    }
}

#[tokio::test(flavor = "current_thread")]
async fn the_wait_for_a_turn_is_no_part_of_an_exchange() {
    let backend = backend();
    LocalSet::new()
        .run_until(async {
            for transport in [Transport::Quic, Transport::Http3] {
                let (addresses, certificate) = proxy(&backend);
                let tls = ClientTls::trusting(&certificate).unwrap();
                let way = held(addresses.quic.unwrap()).await;
                let base = BaseUrl::of("127.0.0.1", addresses.listen.port());

                let lane = lane(0, transport, State::Full, &base);
                let endpoint = lane.endpoint.clone();
                let lane = Rc::new(Lane {
                    endpoint: endpoint
                        .at("127.0.0.1".to_owned(), way.address.port())
                        .over_tls(tls),
                    ..(*lane).clone()
                });
                let plan = CellPlan {
                    concurrency: SESSIONS,
                    ..closed(SESSIONS as u64, 1)
                };
                let (shared, _stopper) = shared(1, Duration::from_secs(60));
                let end = run(&shared, &lane, plan).await;
                assert_eq!(end.completed(), SESSIONS, "{transport}: {:?}", end.troubles);
                end.exchanges.iter().for_each(check_order);
                let opened = way.opened.get().unwrap();
                // Until then no handshake was over: who has no turn yet is not dispatched, and what its `setup` shows is
                // its own handshake.
                let before = |stamp: Stamp| stamp < opened;
                let dispatched = end.exchanges.iter().map(|exchange| exchange.dispatched);
                assert_eq!(dispatched.filter(|&at| before(at)).count(), TURNS);
                let connected = end
                    .exchanges
                    .iter()
                    .filter_map(|exchange| exchange.connected);
                assert_eq!(connected.filter(|&at| before(at)).count(), 0);
            }
        })
        .await;
}

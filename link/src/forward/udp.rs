//! UDP datagrams, carried on one by one: each client has a flow of its own towards the server.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::flow::Flow;

/// Clients of one port at the same time; datagrams of further ones are dropped, as a network may.
const CLIENTS: usize = 1_024;
/// A client from whom and for whom nothing came for so long is forgotten.
const IDLE: Duration = Duration::from_secs(60);
/// The largest datagram.
const LARGEST: usize = 65_535;
/// Room for what comes while the thread does something else, in bytes.
pub(super) const ROOM: usize = 4 << 20;

type Clients = Rc<RefCell<HashMap<SocketAddr, Rc<Flow>>>>;

/// Receives on `door` and carries on to `target`, for as long as it is polled.
pub(super) async fn carry(door: std::net::UdpSocket, target: (String, u16)) {
    let _ = socket2::SockRef::from(&door).set_recv_buffer_size(ROOM);
    let Ok(door) = UdpSocket::from_std(door).map(Rc::new) else {
        return;
    };
    let clients = Clients::default();
    let mut datagram = vec![0; LARGEST];
    loop {
        // An error is of an earlier datagram's making: its client was not reached.
        let Ok((length, client)) = door.recv_from(&mut datagram).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let known = clients.borrow().get(&client).cloned();
        let flow = match known {
            Some(flow) => flow,
            None if clients.borrow().len() >= CLIENTS => continue,
            None => match Flow::open(&target).await {
                Some(flow) => {
                    let flow = Rc::new(flow);
                    clients.borrow_mut().insert(client, Rc::clone(&flow));
                    let back = back(Rc::clone(&flow), Rc::clone(&door), client, clients.clone());
                    tokio::task::spawn_local(back);
                    flow
                }
                None => continue,
            },
        };
        flow.send(&datagram[..length]).await;
    }
}

/// Carries what the server says back to its client.
async fn back(flow: Rc<Flow>, door: Rc<UdpSocket>, client: SocketAddr, clients: Clients) {
    let mut datagram = vec![0; LARGEST];
    loop {
        match timeout(IDLE, flow.receive(&mut datagram)).await {
            Ok(length) => {
                let _ = door.send_to(&datagram[..length], client).await;
            }
            Err(_) if flow.was_used() => {}
            Err(_) => break,
        }
    }
    clients.borrow_mut().remove(&client);
}

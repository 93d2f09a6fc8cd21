//! UDP datagrams, carried on one by one: each client has a socket of its own towards the server.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{UdpSocket, lookup_host};
use tokio::time::timeout;

/// Clients of one port at the same time; datagrams of further ones are dropped, as a network may.
const CLIENTS: usize = 1_024;
/// A client from whom and for whom nothing came for so long is forgotten.
const IDLE: Duration = Duration::from_secs(60);
/// The largest datagram.
const LARGEST: usize = 65_535;
/// Room for what comes while the thread does something else, in bytes.
const ROOM: usize = 4 << 20;

type Clients = Rc<RefCell<HashMap<SocketAddr, Rc<Flow>>>>;

/// One client's way to the server.
struct Flow {
    towards: UdpSocket,
    /// Something came from the client since this was last looked at.
    is_used: Cell<bool>,
}

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
                    clients.borrow_mut().insert(client, Rc::clone(&flow));
                    let back = back(Rc::clone(&flow), Rc::clone(&door), client, clients.clone());
                    tokio::task::spawn_local(back);
                    flow
                }
                None => continue,
            },
        };
        flow.is_used.set(true);
        // One that cannot be sent is lost, as on any network.
        let _ = flow.towards.send(&datagram[..length]).await;
    }
}

impl Flow {
    async fn open(target: &(String, u16)) -> Option<Rc<Self>> {
        let to = lookup_host((target.0.as_str(), target.1))
            .await
            .ok()?
            .next()?;
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0u16; 8], 0).into(),
        };
        let towards = UdpSocket::bind(any).await.ok()?;
        let _ = socket2::SockRef::from(&towards).set_recv_buffer_size(ROOM);
        towards.connect(to).await.ok()?;
        Some(Rc::new(Self {
            towards,
            is_used: Cell::new(true),
        }))
    }
}

/// Carries what the server says back to its client.
async fn back(flow: Rc<Flow>, door: Rc<UdpSocket>, client: SocketAddr, clients: Clients) {
    let mut datagram = vec![0; LARGEST];
    loop {
        match timeout(IDLE, flow.towards.recv(&mut datagram)).await {
            Ok(Ok(length)) => {
                let _ = door.send_to(&datagram[..length], client).await;
            }
            // Nobody is at that port for now.
            Ok(Err(_)) => tokio::task::yield_now().await,
            Err(_) if flow.is_used.replace(false) => {}
            Err(_) => break,
        }
    }
    clients.borrow_mut().remove(&client);
}

//! One client's datagrams on their way to a server of several addresses: the first that does not refuse them has them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::{UdpSocket, lookup_host};
use tokio::sync::Notify;

use super::udp::ROOM;

/// Datagrams, and bytes of them, that are kept for the next address until the server has said something.
const KEPT: usize = 16;
const KEPT_BYTES: usize = 64 * 1024;

/// One client's way to the server.
pub(super) struct Flow {
    /// A name may have addresses at which nobody is, as `localhost` often has one of IPv6.
    towards: RefCell<Rc<UdpSocket>>,
    /// Addresses that were not tried yet.
    untried: RefCell<VecDeque<SocketAddr>>,
    /// Tells who waits at an address that another is taken now.
    moved: Notify,
    unanswered: RefCell<VecDeque<Vec<u8>>>,
    is_answered: Cell<bool>,
    /// Something came from the client since this was last looked at.
    is_used: Cell<bool>,
}

impl Flow {
    /// Towards the first address of `target` that there is a route to.
    pub(super) async fn open(target: &(String, u16)) -> Option<Self> {
        let found = lookup_host((target.0.as_str(), target.1)).await.ok()?;
        let mut untried = found.collect();
        let towards = next_of(&mut untried).await?;
        Some(Self {
            towards: RefCell::new(Rc::new(towards)),
            untried: RefCell::new(untried),
            moved: Notify::new(),
            unanswered: RefCell::default(),
            is_answered: Cell::new(false),
            is_used: Cell::new(true),
        })
    }

    /// Whether the client sent something since this was asked last.
    pub(super) fn was_used(&self) -> bool {
        self.is_used.replace(false)
    }

    /// Carries a datagram of the client's on. One that cannot be sent is lost, as on any network.
    pub(super) async fn send(&self, datagram: &[u8]) {
        self.is_used.set(true);
        self.keep(datagram);
        let towards = self.towards.borrow().clone();
        if towards.send(datagram).await.is_err() {
            // The word of one that was sent before. This one was not sent, and the next address may have it, or this one still.
            if !self.go_on(&towards).await {
                let towards = self.towards.borrow().clone();
                let _ = towards.send(datagram).await;
            }
        }
    }

    /// Waits for a datagram of the server's; its length.
    pub(super) async fn receive(&self, datagram: &mut [u8]) -> usize {
        loop {
            let towards = self.towards.borrow().clone();
            let received = tokio::select! {
                received = towards.recv(datagram) => received,
                () = self.moved.notified() => continue,
            };
            match received {
                Ok(length) => {
                    self.is_answered.set(true);
                    self.unanswered.take();
                    return length;
                }
                // Nobody is at that port for now.
                Err(_) => {
                    self.go_on(&towards).await;
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Keeps a datagram for the next address, where one may be needed.
    fn keep(&self, datagram: &[u8]) {
        let mut unanswered = self.unanswered.borrow_mut();
        if self.is_answered.get() || self.untried.borrow().is_empty() {
            return unanswered.clear();
        }
        let kept: usize = unanswered.iter().map(Vec::len).sum();
        if unanswered.len() < KEPT && kept + datagram.len() <= KEPT_BYTES {
            unanswered.push_back(datagram.to_vec());
        }
    }

    /// The address of `refused` refuses: goes to the next one with what was not answered. `false`: there is none.
    async fn go_on(&self, refused: &Rc<UdpSocket>) -> bool {
        // Another task may have gone on by the same word.
        if self.is_answered.get() || !Rc::ptr_eq(&self.towards.borrow(), refused) {
            return false;
        }
        // The next one may refuse on the spot, which the second datagram is told.
        'addresses: loop {
            let mut untried = self.untried.take();
            let next = next_of(&mut untried).await;
            *self.untried.borrow_mut() = untried;
            let Some(next) = next.map(Rc::new) else {
                return false;
            };
            *self.towards.borrow_mut() = Rc::clone(&next);
            self.moved.notify_one();
            let unanswered = self.unanswered.borrow().clone();
            for datagram in unanswered {
                if next.send(&datagram).await.is_err() {
                    continue 'addresses;
                }
            }
            return true;
        }
    }
}

/// A socket towards the first of `untried` that there is a route to.
async fn next_of(untried: &mut VecDeque<SocketAddr>) -> Option<UdpSocket> {
    while let Some(to) = untried.pop_front() {
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0u16; 8], 0).into(),
        };
        let Ok(towards) = UdpSocket::bind(any).await else {
            continue;
        };
        let _ = socket2::SockRef::from(&towards).set_recv_buffer_size(ROOM);
        if towards.connect(to).await.is_ok() {
            return Some(towards);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn flow(untried: &[SocketAddr]) -> Flow {
        let mut untried: VecDeque<SocketAddr> = untried.iter().copied().collect();
        let towards = next_of(&mut untried).await.unwrap();
        Flow {
            towards: RefCell::new(Rc::new(towards)),
            untried: RefCell::new(untried),
            moved: Notify::new(),
            unanswered: RefCell::default(),
            is_answered: Cell::new(false),
            is_used: Cell::new(true),
        }
    }

    async fn echoing() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0").await.unwrap()
    }

    async fn refusing() -> SocketAddr {
        echoing().await.local_addr().unwrap()
    }

    #[tokio::test]
    async fn the_address_that_does_not_refuse_has_all_that_was_sent() {
        let server = echoing().await;
        let addresses = [
            refusing().await,
            refusing().await,
            server.local_addr().unwrap(),
        ];
        let flow = flow(&addresses).await;
        flow.send(b"one").await;
        // Whoever hears the word first goes on: the one who sends, or the one who waits for answers.
        flow.send(b"two").await;
        let talk = async {
            let mut datagram = [0; 100];
            let mut heard = Vec::new();
            while heard.len() < 2 {
                let (length, from) = server.recv_from(&mut datagram).await.unwrap();
                let datagram = datagram[..length].to_vec();
                if !heard.contains(&datagram) {
                    heard.push(datagram);
                }
                server.send_to(b"heard", from).await.unwrap();
            }
            heard.sort();
            heard
        };
        let mut answer = [0; 100];
        let both = async { tokio::join!(talk, flow.receive(&mut answer)) };
        let (heard, length) = tokio::time::timeout(PATIENCE, both).await.unwrap();
        assert_eq!(heard, [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(&answer[..length], b"heard");
        assert!(flow.unanswered.borrow().is_empty());
    }

    #[tokio::test]
    async fn a_server_that_comes_later_is_reached_at_the_last_address() {
        let at = refusing().await;
        let flow = flow(&[refusing().await, at]).await;
        flow.send(b"too early").await;
        let mut answer = [0; 100];
        while !flow.untried.borrow().is_empty() {
            let early = tokio::time::timeout(Duration::from_millis(10), flow.receive(&mut answer));
            assert!(early.await.is_err(), "nobody is there yet");
        }
        let server = UdpSocket::bind(at).await.unwrap();
        flow.send(b"now").await;
        let mut datagram = [0; 100];
        let heard = tokio::time::timeout(PATIENCE, server.recv_from(&mut datagram));
        let (length, from) = heard.await.unwrap().unwrap();
        assert_eq!(&datagram[..length], b"now");
        server.send_to(b"yes", from).await.unwrap();
        let answered = tokio::time::timeout(PATIENCE, flow.receive(&mut answer));
        assert_eq!(answered.await.unwrap(), 3);
    }
}

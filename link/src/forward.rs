//! Carrying what reaches the server's side of a link on to the host: services that know nothing of namespaces are behind the
//! link then. A thread of its own does it, in the namespace of the thread that started it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::thread::{self, JoinHandle};

use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::{LinkError, Side};

mod flow;
mod tcp;
mod udp;

/// What is carried on, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The port on the server's side; 0: the system chooses.
    pub port: u16,
    /// The host to carry it on to, a name or an address, as it is reached from the host's own network.
    pub host: String,
    /// Its port.
    pub to: u16,
}

/// `PORT`, or `PORT=HOST:PORT`.
impl FromStr for Forward {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let wrong = || LinkError::Forward {
            given: text.to_owned(),
            reason: "write PORT for the same port of 127.0.0.1, or PORT=HOST:PORT".to_owned(),
        };
        let number = |text: &str| text.parse().ok().filter(|port| *port > 0).ok_or_else(wrong);
        let Some((port, target)) = text.split_once('=') else {
            return Ok(Self {
                port: number(text)?,
                host: "127.0.0.1".to_owned(),
                to: number(text)?,
            });
        };
        let (host, to) = target.rsplit_once(':').ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let is_odd = host.is_empty() || (bare.is_none() && host.contains(':'));
        if is_odd || host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
            return Err(wrong());
        }
        Ok(Self {
            port: number(port)?,
            host: host.to_owned(),
            to: number(to)?,
        })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "{}=[{}]:{}", self.port, self.host, self.to),
            false => write!(f, "{}={}:{}", self.port, self.host, self.to),
        }
    }
}

/// Ports that are being carried on, until this value is dropped.
#[derive(Debug)]
pub struct Forwarder {
    ports: Vec<u16>,
    /// Dropped, it ends the thread.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// One port's sockets on the server's side, and where they lead.
struct Doors {
    tcp: Vec<std::net::TcpListener>,
    udp: Vec<std::net::UdpSocket>,
    target: (String, u16),
}

impl Forwarder {
    /// Listens on `side` for each of `forwards`, over TCP and UDP, IPv4 and IPv6, and carries on to where this thread can
    /// connect to.
    ///
    /// # Errors
    /// A port that cannot be listened on, or a thread that cannot be started.
    pub fn start(side: &Side, forwards: &[Forward]) -> Result<Self, LinkError> {
        let (mut doors, mut ports) = (Vec::new(), Vec::new());
        for forward in forwards {
            let refused = |error: io::Error| LinkError::Forward {
                given: forward.to_string(),
                reason: format!("cannot listen on the server's side of the link: {error}"),
            };
            let made = side.namespace.within(|| Doors::make(side, forward));
            let made = made.and_then(|made| made).map_err(refused)?;
            ports.push(made.tcp[0].local_addr().map_err(refused)?.port());
            doors.push(made);
        }
        let (end, ended) = oneshot::channel::<()>();
        let thread = thread::Builder::new()
            .name("forward".to_owned())
            .spawn(move || {
                let Ok(runtime) = runtime::Builder::new_current_thread().enable_all().build()
                else {
                    return;
                };
                LocalSet::new().block_on(&runtime, async {
                    for doors in doors {
                        doors.open();
                    }
                    let _ = ended.await;
                });
                // A name that is being looked up is not waited for.
                runtime.shutdown_background();
            })
            .map_err(LinkError::system("start a thread", "there are too many"))?;
        Ok(Self {
            ports,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// The ports on the server's side, in the order of what was asked.
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Doors {
    /// Must run within the side's namespace.
    fn make(side: &Side, forward: &Forward) -> io::Result<Self> {
        let addresses: [IpAddr; 2] = [side.addresses.v4.into(), side.addresses.v6.into()];
        let count = if side.has_v6 { 2 } else { 1 };
        let mut doors = Self {
            tcp: Vec::new(),
            udp: Vec::new(),
            target: (forward.host.clone(), forward.to),
        };
        let mut port = forward.port;
        for address in &addresses[..count] {
            let listener = std::net::TcpListener::bind((*address, port))?;
            listener.set_nonblocking(true)?;
            port = listener.local_addr()?.port();
            doors.tcp.push(listener);
            let socket = std::net::UdpSocket::bind(SocketAddr::new(*address, port))?;
            socket.set_nonblocking(true)?;
            doors.udp.push(socket);
        }
        Ok(doors)
    }

    /// Must run within a [`LocalSet`].
    fn open(self) {
        for listener in self.tcp {
            tokio::task::spawn_local(tcp::carry(listener, self.target.clone()));
        }
        for socket in self.udp {
            tokio::task::spawn_local(udp::carry(socket, self.target.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ports_as_people_write_them() {
        for (text, shown) in [
            ("8080", "8080=127.0.0.1:8080"),
            ("80=localhost:8080", "80=localhost:8080"),
            ("443=[::1]:8443", "443=[::1]:8443"),
        ] {
            assert_eq!(text.parse::<Forward>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "0",
            "70000",
            "80=",
            "80=x",
            "80=:1",
            "80=::1:80",
            "80=a b:1",
            "80=x:0",
        ] {
            let told = text.parse::<Forward>().unwrap_err().to_string();
            assert!(told.contains("PORT=HOST:PORT"), "{told}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "\\PC{0,40}") {
            if let Ok(forward) = text.parse::<Forward>() {
                prop_assert_eq!(forward.to_string().parse::<Forward>().unwrap(), forward);
            }
        }
    }
}

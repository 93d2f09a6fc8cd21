//! The addresses of the two doors, bound for every thread before anything starts.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::{io, thread};

use nix::sched::{CloneFlags, setns};
use tokenlag_channel::{quic, tcp};

use crate::options::ProxyOptions;
use crate::proxy::ProxyError;

/// How often another port is asked for where the system chose one for TCP that somebody has over UDP.
const ATTEMPTS: usize = 16;

/// One thread's sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) tcp: TcpListener,
    pub(crate) udp: Option<UdpSocket>,
}

/// Every thread's sockets, and where they listen.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) sockets: Vec<Sockets>,
    pub(crate) tcp: SocketAddr,
    pub(crate) udp: Option<SocketAddr>,
}

impl Bound {
    /// Binds what the options say. A UDP port that is left to the system is the one of TCP.
    pub(crate) fn to(options: &ProxyOptions) -> Result<Self, ProxyError> {
        match &options.listen_in {
            None => Self::here(options),
            Some(namespace) => Self::within(namespace, options),
        }
    }

    /// The same in another network namespace: a socket stays in the one in which it was made, and the thread that went there
    /// ends with its errand.
    fn within(namespace: &Path, options: &ProxyOptions) -> Result<Self, ProxyError> {
        let refused = |source: io::Error| ProxyError::Namespace {
            path: namespace.to_owned(),
            source,
        };
        let entered = || -> io::Result<()> {
            let namespace = File::open(namespace)?;
            Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?)
        };
        thread::scope(|scope| {
            let errand = scope.spawn(|| {
                entered().map_err(refused)?;
                Self::here(options)
            });
            match errand.join() {
                Ok(bound) => bound,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn here(options: &ProxyOptions) -> Result<Self, ProxyError> {
        let free = options.listen.port() == 0 && options.quic.is_some_and(|udp| udp.port() == 0);
        let mut attempts = if free { ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            match Self::once(options) {
                Err(ProxyError::Bind { source, .. })
                    if source.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
                bound => return bound,
            }
        }
    }

    fn once(options: &ProxyOptions) -> Result<Self, ProxyError> {
        let shared = options.threads > 1;
        let mut bound = Self {
            sockets: Vec::new(),
            tcp: options.listen,
            udp: options.quic,
        };
        for _ in 0..options.threads.max(1) {
            let tcp = tcp::listen(bound.tcp, shared).map_err(cannot_bind(bound.tcp, "TCP"))?;
            // Port 0 is chosen once; the other threads share it.
            bound.tcp = tcp.local_addr().map_err(cannot_bind(bound.tcp, "TCP"))?;
            let mut udp = None;
            if let Some(address) = &mut bound.udp {
                if address.port() == 0 && address.ip() == bound.tcp.ip() {
                    address.set_port(bound.tcp.port());
                }
                let socket = quic::bind(*address, shared).map_err(cannot_bind(*address, "UDP"))?;
                *address = socket.local_addr().map_err(cannot_bind(*address, "UDP"))?;
                udp = Some(socket);
            }
            bound.sockets.push(Sockets { tcp, udp });
        }
        Ok(bound)
    }
}

/// What to do about an address that cannot be listened on.
pub(crate) fn cannot_bind(
    address: SocketAddr,
    what: &'static str,
) -> impl Fn(io::Error) -> ProxyError {
    move |source| ProxyError::Bind {
        address,
        what,
        remedy: match source.kind() {
            io::ErrorKind::AddrInUse => "another process uses the port: stop it or choose another",
            io::ErrorKind::AddrNotAvailable => "this host has no such address",
            io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege",
            _ => "choose another address",
        },
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> ProxyOptions {
        let upstream = "http://127.0.0.1:1".parse().unwrap();
        ProxyOptions::new(([127, 0, 0, 1], 0).into(), upstream)
    }

    #[test]
    fn every_thread_shares_one_port_of_either_kind() {
        let mut options = options();
        options.threads = 3;
        let bound = Bound::to(&options).unwrap();
        assert_eq!(bound.udp, Some(bound.tcp));
        for sockets in &bound.sockets {
            assert_eq!(sockets.tcp.local_addr().unwrap(), bound.tcp);
            let udp = sockets.udp.as_ref().unwrap();
            assert_eq!(udp.local_addr().unwrap(), bound.tcp);
        }
        assert_eq!(bound.sockets.len(), 3);
    }

    #[test]
    fn a_port_that_was_asked_for_is_not_exchanged() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let mut options = options();
        options.quic = Some(address);
        let error = Bound::to(&options).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}

//! How the instrument's sockets send: what is written leaves with the call.

use std::os::fd::AsFd;

use socket2::SockRef;

/// Has every write leave at once. A socket that refuses is gone already, or as good as the system's others.
pub(crate) fn send_at_once(socket: &impl AsFd) {
    let socket = SockRef::from(socket);
    // Without it tokens wait for acknowledgements.
    let _ = socket.set_tcp_nodelay(true);
    // BBR, the usual choice of some systems, holds writes back to pace them, and has more to compute for each.
    let _ = socket.set_tcp_congestion(b"reno");
}

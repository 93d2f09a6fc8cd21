//! A way to a server that carries nothing for a while, as if the server stood still: what comes meanwhile waits for its end.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::time::Duration;

use tokenlag_probes::{Clock, MonoClock, Stamp};

/// Starts a way to `server` that carries nothing within `frozen`; where to dial it. Its threads end with their connections,
/// the one that accepts with the process.
pub fn way_to(server: SocketAddr, frozen: Range<Stamp>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(server).unwrap();
            for socket in [&client, &server] {
                socket.set_nodelay(true).unwrap();
            }
            let (up, down) = (
                (client.try_clone().unwrap(), server.try_clone().unwrap()),
                (server, client),
            );
            for (from, to) in [up, down] {
                let frozen = frozen.clone();
                std::thread::spawn(move || carry(from, to, &frozen));
            }
        }
    });
    address
}

fn carry(mut from: TcpStream, mut to: TcpStream, frozen: &Range<Stamp>) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let now = MonoClock.now();
        if frozen.contains(&now) {
            std::thread::sleep(Duration::from_nanos(frozen.end.since(now) as u64));
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

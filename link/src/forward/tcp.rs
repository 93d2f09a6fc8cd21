//! TCP connections, carried on byte by byte: an end is passed on as an end, a break as a break.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections of one port at the same time; further ones wait to be accepted.
const CONNECTIONS: usize = 4_096;
/// Bytes under way within this process, each way of each connection.
const BUFFER: usize = 64 * 1024;
/// How long a failed accept (no file descriptors left, say) is waited out.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts on `listener` and carries on to `target`, for as long as it is polled.
pub(super) async fn carry(listener: std::net::TcpListener, target: (String, u16)) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let places = Rc::new(Semaphore::new(CONNECTIONS));
    let target = Rc::new(target);
    // It is never closed.
    while let Ok(()) = places.acquire().await.map(|place| place.forget()) {
        let (places, target) = (Rc::clone(&places), Rc::clone(&target));
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::task::spawn_local(async move {
                    one(client, &target).await;
                    places.add_permits(1);
                });
            }
            Err(_) => {
                places.add_permits(1);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn one(mut client: TcpStream, target: &(String, u16)) {
    let dialled = TcpStream::connect((target.0.as_str(), target.1)).await;
    let Ok(mut server) = dialled else {
        // Nobody is there: the client sees a reset, as it would without a link.
        return break_off(&client);
    };
    let carried = async {
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await?;
        io::Result::Ok(())
    };
    if carried.await.is_err() {
        break_off(&client);
        break_off(&server);
    }
}

/// The connection's end will be a reset.
fn break_off(stream: &TcpStream) {
    // A socket that is gone already has nothing to say.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

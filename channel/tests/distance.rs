//! How far another end is: what a tunnel in between, a server that keeps its half open, and one that is not there make of it.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use tokenlag_channel::distance::round_trip;

/// A server that does this with each connection.
fn serving(serve: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.incoming().flatten().for_each(serve));
    port
}

async fn to(port: u16) -> Duration {
    round_trip("127.0.0.1", port).await.unwrap()
}

#[tokio::test]
async fn an_end_that_closes_late_is_as_far() {
    let near = serving(|mut stream| {
        let _ = stream.read(&mut [0; 16]);
    });
    let far = serving(|mut stream| {
        let _ = stream.read(&mut [0; 16]);
        // As behind a tunnel: the end goes there and back.
        thread::sleep(Duration::from_millis(30));
    });
    let (near, far) = (to(near).await, to(far).await);
    assert!(far >= Duration::from_millis(30), "{far:?}");
    assert!(near < far, "{near:?}, {far:?}");
}

#[tokio::test]
async fn an_end_that_stays_open_is_told_by_its_connection() {
    let held = std::sync::Mutex::new(Vec::new());
    let open = serving(move |stream| held.lock().unwrap().push(stream));
    let found = to(open).await;
    assert!(found < Duration::from_secs(1), "{found:?}");
}

#[tokio::test]
async fn who_is_not_there_is_said_to_be() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = round_trip("127.0.0.1", port).await.unwrap_err();
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

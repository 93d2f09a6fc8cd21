//! Trouble that is planted on a path: relays of TCP that hold back, bunch or slow down what passes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use tokenlag_probes::{Clock, MonoClock, Stamp};

/// What a relay does to the bytes that go back to the client.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    /// Every byte comes so much later, and so does the end; the way there is as slow.
    Far(Duration),
    /// Nothing goes on before so many bytes are there, or the reply is over.
    Buffers(usize),
    /// Each read goes on in two writes, on a socket whose small segments wait for the acknowledgement of those before.
    Nagle,
}

/// What ends a body in chunks.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// A reply without such an end is over after so much silence.
const SILENCE: Duration = Duration::from_millis(250);

/// Starts a relay to `upstream`; it goes on until the test's process ends.
pub fn relay(upstream: &str, trouble: Trouble) -> String {
    let to = upstream.trim_start_matches("http://");
    let to: SocketAddr = to.parse().expect("an address and a port");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || carry(&client, to, trouble));
        }
    });
    format!("http://{address}")
}

fn carry(client: &TcpStream, to: SocketAddr, trouble: Trouble) {
    let Ok(server) = TcpStream::connect(to) else {
        return;
    };
    let nagle = matches!(trouble, Trouble::Nagle);
    let _ = (server.set_nodelay(!nagle), client.set_nodelay(!nagle));
    thread::scope(|scope| {
        scope.spawn(|| match trouble {
            Trouble::Far(by) => later(client, &server, by),
            Trouble::Nagle => in_pieces(client, &server, 2),
            Trouble::Buffers(_) => in_pieces(client, &server, 1),
        });
        match trouble {
            Trouble::Far(by) => later(&server, client, by),
            Trouble::Buffers(room) => buffered(&server, client, room),
            Trouble::Nagle => in_pieces(&server, client, 2),
        }
    });
}

/// Hands on what comes, in so many writes.
fn in_pieces(mut from: &TcpStream, mut to: &TcpStream, pieces: usize) {
    let mut buffer = [0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        for piece in buffer[..count].chunks(count.div_ceil(pieces)) {
            if to.write_all(piece).is_err() {
                return;
            }
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn buffered(mut from: &TcpStream, mut to: &TcpStream, room: usize) {
    let _ = from.set_read_timeout(Some(SILENCE));
    let mut held = Vec::new();
    let mut buffer = [0; 65_536];
    loop {
        let open = match from.read(&mut buffer) {
            Ok(count @ 1..) => {
                held.extend_from_slice(&buffer[..count]);
                if held.len() < room && !held.ends_with(LAST_CHUNK) {
                    continue;
                }
                true
            }
            Ok(_) => false,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        };
        if to.write_all(&held).is_err() || !open {
            break;
        }
        held.clear();
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn later(mut from: &TcpStream, to: &TcpStream, by: Duration) {
    let (send, held): (Sender<(Stamp, Vec<u8>)>, _) = channel();
    thread::scope(|scope| {
        scope.spawn(move || release(&held, to));
        let mut buffer = [0; 65_536];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let due = MonoClock.now() + by;
            if send.send((due, buffer[..count].to_vec())).is_err() {
                break;
            }
        }
        // The end is as late as the bytes.
        let _ = send.send((MonoClock.now() + by, Vec::new()));
        drop(send);
    });
}

fn release(held: &Receiver<(Stamp, Vec<u8>)>, mut to: &TcpStream) {
    for (due, bytes) in held {
        let left = due.since(MonoClock.now());
        thread::sleep(Duration::from_nanos(u64::try_from(left).unwrap_or(0)));
        let done = match bytes.is_empty() {
            true => to.shutdown(Shutdown::Write),
            false => to.write_all(&bytes),
        };
        if done.is_err() {
            return;
        }
    }
}

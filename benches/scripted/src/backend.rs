//! The backend itself: a listener, a thread per connection, and what they share.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokenlag_probes::{Stamp, TraceId};

use crate::connection;
use crate::journal::{Journal, ReceivedRequest};
use crate::play::After;
use crate::script::Script;

/// What all connections share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) journal: Journal,
    pub(crate) stopping: AtomicBool,
    pub(crate) replies: AtomicU64,
    accepted: AtomicU64,
    script: Mutex<Script>,
    open: Mutex<HashMap<u64, Arc<TcpStream>>>,
}

impl Shared {
    pub(crate) fn script(&self) -> Script {
        locked(&self.script).clone()
    }
}

/// Nothing is left half done under these locks, so a thread that panicked spoils nothing.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running backend with known token times. Dropping it closes its connections and ends its threads.
#[derive(Debug)]
pub struct ScriptedBackend {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

impl ScriptedBackend {
    /// Starts on a free port of 127.0.0.1; `script` is for requests that bring none, and what others change.
    ///
    /// # Errors
    ///
    /// No port can be had.
    pub fn start(script: Script) -> io::Result<Self> {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)), script)
    }

    /// Starts on `address`.
    ///
    /// # Errors
    ///
    /// The address cannot be had.
    pub fn start_on(address: SocketAddr, script: Script) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            ..Shared::default()
        });
        let for_listener = Arc::clone(&shared);
        let listener = std::thread::Builder::new()
            .name("scripted".to_owned())
            .spawn(move || accept(&listener, &for_listener))?;
        Ok(Self {
            address,
            shared,
            listener: Some(listener),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Replaces the script for requests that begin from now on.
    pub fn set_script(&self, script: Script) {
        *locked(&self.shared.script) = script;
    }

    /// The stamps taken immediately before the write of each delta of this exchange, in order; of an event that was cut
    /// into pieces, before its last piece. They are there before the reply's end is written, or its connection closed.
    /// `None` where no reply to that trace was streamed, or so many followed that it was forgotten.
    pub fn emissions(&self, trace: TraceId) -> Option<Vec<Stamp>> {
        self.shared.journal.emissions(trace)
    }

    /// The last requests, oldest first, of every path.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.shared.journal.requests()
    }

    /// The same, and forgets them.
    pub fn take_requests(&self) -> Vec<ReceivedRequest> {
        self.shared.journal.take_requests()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for ScriptedBackend {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        // The listener sleeps in accept; a connection wakes it. Where none can be made, it has ended already.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(listener) = self.listener.take() {
            // It joins the connections' threads.
            let _ = listener.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for socket in listener.incoming() {
        if shared.stopping.load(Ordering::Relaxed) {
            break;
        }
        let Ok(socket) = socket else {
            // Out of file descriptors, most likely: connections that end will free some.
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        let number = shared.accepted.fetch_add(1, Ordering::Relaxed);
        // Without it tokens wait for acknowledgements; a socket that refuses is gone already.
        let _ = socket.set_nodelay(true);
        let socket = Arc::new(socket);
        locked(&shared.open).insert(number, Arc::clone(&socket));
        let for_thread = Arc::clone(shared);
        let thread = std::thread::Builder::new()
            .name(format!("scripted-{number}"))
            .spawn(move || serve(socket, number, &for_thread));
        match thread {
            Ok(thread) => threads.push(thread),
            Err(_) => {
                locked(&shared.open).remove(&number);
            }
        }
        threads.retain(|thread| !thread.is_finished());
    }
    for socket in locked(&shared.open).values() {
        let _ = socket.shutdown(Shutdown::Both);
    }
    for thread in threads {
        let _ = thread.join();
    }
}

fn serve(socket: Arc<TcpStream>, number: u64, shared: &Shared) {
    let after = connection::serve(&socket, number, shared);
    if after == After::Reset {
        // With nothing to linger for, closing sends RST in place of FIN.
        let _ = socket2::SockRef::from(&*socket).set_linger(Some(Duration::ZERO));
    }
    // The socket closes when its last owner lets go of it.
    locked(&shared.open).remove(&number);
}

//! The backend itself: a listener, a thread per connection, and what they share.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokenlag_probes::{SignedHistogram, Stamp, TraceId};

use crate::conductor::{self, Play};
use crate::connection;
use crate::doors::Doors;
use crate::journal::{Journal, ReceivedRequest};
use crate::lateness::Lateness;
use crate::pace::{self, Pace};
use crate::play::After;
use crate::script::Script;
use crate::socket;

/// What all connections share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) journal: Journal,
    pub(crate) stopping: AtomicBool,
    pub(crate) replies: AtomicU64,
    accepted: AtomicU64,
    script: Mutex<Script>,
    open: Mutex<HashMap<u64, Arc<TcpStream>>>,
    conductor: Mutex<Option<Sender<Play>>>,
    late: Mutex<SignedHistogram>,
    /// How moments are kept, once the thread that keeps them has found out what it may.
    pace: OnceLock<Pace>,
}

impl Shared {
    /// Has a reply played.
    pub(crate) fn play(&self, play: Play) -> io::Result<()> {
        let stopped = || io::Error::other("the backend was told to stop");
        let conductor = locked(&self.conductor).clone();
        conductor
            .ok_or_else(stopped)?
            .send(play)
            .map_err(|_| stopped())
    }

    /// Notes how late a write was that completed a delta.
    pub(crate) fn note_lateness(&self, nanos: i64) {
        locked(&self.late).record(nanos);
    }

    /// How moments are really kept.
    pub(crate) fn set_pace(&self, pace: Pace) {
        // The doors' thread finds what the first one found.
        let _ = self.pace.set(pace);
    }

    pub(crate) fn next_connection(&self) -> u64 {
        self.accepted.fetch_add(1, Ordering::Relaxed)
    }

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
    wanted: Pace,
    threads: Vec<JoinHandle<()>>,
    doors: Option<Doors>,
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
        Self::start_with(address, script, Pace::Spin)
    }

    /// Starts on `address`, keeping its moments as `pace` says; without the right to real-time priority it spins, and
    /// [`Lateness::pace`] tells.
    ///
    /// # Errors
    ///
    /// The address cannot be had.
    pub fn start_with(address: SocketAddr, script: Script, pace: Pace) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let (conductor, inbox) = channel();
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            conductor: Mutex::new(Some(conductor)),
            ..Shared::default()
        });
        let for_conductor = Arc::clone(&shared);
        let conductor = std::thread::Builder::new()
            .name("scripted-play".to_owned())
            .spawn(move || conductor::conduct(&inbox, &for_conductor, pace))?;
        let for_listener = Arc::clone(&shared);
        let listener = std::thread::Builder::new()
            .name("scripted".to_owned())
            .spawn(move || {
                // The connections' threads inherit it: a request that was read is not to wait for its reply to begin.
                pace::take(pace);
                accept(&listener, &for_listener);
            })?;
        Ok(Self {
            address,
            shared,
            wanted: pace,
            threads: vec![listener, conductor],
            doors: None,
        })
    }

    /// Opens its doors for the other channels, once: HTTP/2, WebSocket (and HTTP/1.1) on a TCP port, HTTP/3 and the raw QUIC
    /// channel on a UDP port, all with the accepting ends that the proxy has too.
    ///
    /// # Errors
    ///
    /// No port can be had, or no thread.
    pub fn open_doors(&mut self) -> io::Result<&Doors> {
        if self.doors.is_none() {
            self.doors = Some(Doors::open(Arc::clone(&self.shared), self.wanted)?);
        }
        Ok(self.doors.as_ref().expect("they were just opened"))
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

    /// The stamps of all exchanges that are kept, and forgets them.
    pub fn take_emissions(&self) -> HashMap<TraceId, Vec<Stamp>> {
        self.shared.journal.take_emissions()
    }

    /// How it keeps its moments: what it was started with, or a spin where that is not allowed.
    pub fn pace(&self) -> Pace {
        *self.shared.pace.wait()
    }

    /// How late it was since this was asked last: what the instrument's own error is.
    pub fn take_lateness(&self) -> Lateness {
        Lateness::of(&self.take_late(), self.pace())
    }

    /// The same as a histogram in nanoseconds, for who adds several.
    pub fn take_late(&self) -> SignedHistogram {
        std::mem::take(&mut *locked(&self.shared.late))
    }

    /// The last requests, oldest first, of every path.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.shared.journal.requests()
    }

    /// The same, and forgets them.
    pub fn take_requests(&self) -> Vec<ReceivedRequest> {
        self.shared.journal.take_requests()
    }

    /// Connections accepted so far, those through its doors among them.
    pub fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for ScriptedBackend {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        // The listener sleeps in accept; a connection wakes it. Where none can be made, it has ended already.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        // The listener joins the connections' threads.
        for thread in self.threads.drain(..) {
            let _ = thread.join();
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
        let number = shared.next_connection();
        socket::send_at_once(&socket);
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

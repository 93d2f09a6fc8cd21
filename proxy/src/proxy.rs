//! The proxy as a whole: it binds everything first, so that an address in use is one error and nothing half-started.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use tokenlag_channel::tls::{self, Identity, ServerTls};
use tokenlag_channel::{ChannelError, quic, tcp};
use tokio::runtime;
use tokio::select;
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet, spawn_local};
use tokio::time::timeout;

use crate::admin::Admin;
use crate::book::Book;
use crate::carried::{Asked, Thread};
use crate::counting::answer;
use crate::front;
use crate::front::tcp::Door;
use crate::options::ProxyOptions;
use crate::sockets::{Bound, Sockets, cannot_bind};
use crate::upstream;
use crate::usage::Watches;
use crate::worker::Worker;

/// How long a failed accept (no file descriptors left, say) is waited out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A proxy whose addresses are bound.
#[derive(Debug)]
pub struct Proxy {
    options: ProxyOptions,
    addresses: Addresses,
    identity: Identity,
    door: Door,
    sockets: Vec<Sockets>,
    admin: TcpListener,
}

/// Where a proxy listens, with the ports that the system chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Addresses {
    /// TCP: HTTP/1.1, HTTP/2 and WebSocket, in clear and inside TLS.
    pub listen: SocketAddr,
    /// UDP: HTTP/3 and the raw QUIC channel.
    pub quic: Option<SocketAddr>,
    /// The admin endpoint.
    pub admin: SocketAddr,
}

/// Why a proxy does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({what}): {source}; {remedy}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What it is for.
        what: &'static str,
        /// The system's word.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The namespace that the doors were to be made in.
    #[error(
        "cannot enter the network namespace {path} to listen there: {source}; it takes CAP_SYS_ADMIN"
    )]
    Namespace {
        /// Its path.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The admin endpoint would be public.
    #[error(
        "the admin endpoint {0} is no loopback address; anyone who reaches it can read figures and stop the proxy: \
         choose 127.0.0.1, or allow it with --admin-public"
    )]
    PublicAdmin(SocketAddr),
    /// Certificate or key.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A thread or its runtime could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

impl Proxy {
    /// Binds every address.
    ///
    /// # Errors
    /// An address that cannot be listened on, a public admin endpoint that was not allowed, an unusable certificate.
    pub fn bind(options: ProxyOptions) -> Result<Self, ProxyError> {
        if !options.admin.ip().is_loopback() && !options.admin_public {
            return Err(ProxyError::PublicAdmin(options.admin));
        }
        let options = upstream::complete(options)?;
        let identity = match &options.identity {
            Some(identity) => identity.clone(),
            None => tls::self_signed(&["localhost", "127.0.0.1", "::1"])?,
        };
        let bound = Bound::to(&options)?;
        let admin =
            tcp::listen(options.admin, false).map_err(cannot_bind(options.admin, "admin"))?;
        let addresses = Addresses {
            listen: bound.tcp,
            quic: bound.udp,
            admin: admin
                .local_addr()
                .map_err(cannot_bind(options.admin, "admin"))?,
        };
        let tls = server_tls(&options, &identity);
        let http3 = addresses.quic.map(|address| address.port());
        let door = Door::new(&tls, options.limits, http3, options.nagle)?;
        Ok(Self {
            options,
            addresses,
            identity,
            door,
            sockets: bound.sockets,
            admin,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The certificate (PEM) that clients of TLS and QUIC must trust.
    pub fn certificate(&self) -> &str {
        &self.identity.cert_pem
    }

    /// Carries traffic until `shutdown` completes or `/shutdown` is asked for; then drains. Must run within a
    /// [`LocalSet`]; the traffic has threads of its own.
    ///
    /// # Errors
    /// A thread could not be started.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ProxyError> {
        let (drain, draining) = watch::channel(false);
        let (gone, mut last_gone) = tokio::sync::mpsc::channel::<()>(1);
        let tls = server_tls(&self.options, &self.identity);
        let udp = quic::Door::watched(&tls, self.options.limits, self.door.watch().clone())?;
        let mut book = Book::new(&self.options);
        book.metrics.tell_room("tcp", self.door.room());
        book.metrics.tell_room("udp", udp.room());
        let watches = Watches {
            door: self.door.watch().clone(),
            upstream: self.options.stamping.watch().clone(),
        };
        book.metrics.tell_sockets(&watches);
        let book = Arc::new(book);
        let (mut threads, mut counting) = (Vec::new(), Vec::new());
        for (number, sockets) in self.sockets.into_iter().enumerate() {
            let (book, draining, gone) = (Arc::clone(&book), draining.clone(), gone.clone());
            let options = self.options.clone();
            let (udp, door) = (udp.clone(), self.door.clone());
            let (thread, asked) = Thread::new();
            counting.push(thread);
            let thread = thread::Builder::new()
                .name(format!("proxy-{number}"))
                .spawn(move || {
                    let grace = options.grace;
                    let worker = Worker::new(options, door, book, draining);
                    let served = carry(worker, sockets, &udp, asked, grace);
                    drop(gone);
                    served
                })
                .map_err(ProxyError::Thread)?;
            threads.push(thread);
        }
        drop(gone);
        let certificate = &self.identity.cert_pem;
        let admin = Admin::new(
            book,
            counting,
            &self.options,
            self.addresses,
            certificate,
            watches,
        );
        let stop = admin.serve(self.admin, draining);
        select! {
            () = shutdown => {}
            () = stop => {}
            // A worker that could not start is found out below.
            _ = last_gone.recv() => {}
        }
        drain.send_replace(true);
        let _ = last_gone.recv().await;
        for thread in threads {
            match thread.join() {
                Ok(served) => served?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    }

    /// Carries traffic on the calling thread alone, and without the admin endpoint, until it is dropped. Must run within a
    /// [`LocalSet`]. It is there for counting instructions: only where nothing runs beside it, the count is the same each time.
    ///
    /// # Errors
    /// The sockets cannot be used.
    #[doc(hidden)]
    pub async fn run_here(self) -> Result<(), ProxyError> {
        let (_drain, draining) = watch::channel(false);
        let book = Arc::new(Book::new(&self.options));
        let tls = server_tls(&self.options, &self.identity);
        let udp = quic::Door::watched(&tls, self.options.limits, self.door.watch().clone())?;
        let (_thread, asked) = Thread::new();
        let grace = self.options.grace;
        let worker = Rc::new(Worker::new(self.options, self.door, book, draining));
        match self.sockets.into_iter().next() {
            Some(sockets) => serve(worker, sockets, &udp, asked, grace).await,
            None => Ok(()),
        }
    }
}

fn server_tls(options: &ProxyOptions, identity: &Identity) -> ServerTls {
    ServerTls {
        identity: identity.clone(),
        resumption: options.resumption,
        early_data: options.zero_rtt,
    }
}

/// One thread's work, to the end of its drain.
fn carry(
    worker: Worker,
    sockets: Sockets,
    udp: &quic::Door,
    asked: Asked,
    grace: Duration,
) -> Result<(), ProxyError> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ProxyError::Thread)?;
    let worker = Rc::new(worker);
    let udp = udp.clone();
    // A task of its own: what the set itself waits for is polled whenever any task wakes, which is with every token.
    let served = async move {
        let served = spawn_local(async move { serve(worker, sockets, &udp, asked, grace).await });
        served
            .await
            .unwrap_or_else(|ended| match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Nobody cancels it.
                Err(_) => Ok(()),
            })
    };
    LocalSet::new().block_on(&runtime, served)
}

/// The same within a thread's runtime.
async fn serve(
    worker: Rc<Worker>,
    sockets: Sockets,
    udp: &quic::Door,
    asked: Asked,
    grace: Duration,
) -> Result<(), ProxyError> {
    let listener = tokio::net::TcpListener::from_std(sockets.tcp).map_err(ProxyError::Thread)?;
    let quic = sockets
        .udp
        .map(|socket| front::udp::listen(&worker, socket, udp))
        .transpose()?;
    spawn_local(answer(Rc::clone(&worker), asked));
    let mut connections = JoinSet::new();
    accept(&worker, &listener, quic.as_ref(), &mut connections).await;
    drop(listener);
    // Idle connections end by themselves; exchanges under way have the grace.
    let all_done = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(grace, all_done).await;
    if let Some(quic) = quic {
        let _ = timeout(Duration::from_millis(200), quic.close()).await;
    }
    worker.leave_upstream().await;
    Ok(())
}

/// Accepts on both sockets until the drain begins.
async fn accept(
    worker: &Rc<Worker>,
    listener: &tokio::net::TcpListener,
    quic: Option<&quic::Listener>,
    connections: &mut JoinSet<()>,
) {
    let next_handshake = || async {
        match quic {
            Some(listener) => listener.accept().await,
            None => std::future::pending().await,
        }
    };
    loop {
        select! {
            biased;
            () = worker.draining() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn_local(front::tcp::serve(Rc::clone(worker), stream));
                }
                // Connections that are being served go on; new ones wait in the kernel's queue.
                Err(_) => {
                    worker.book.metrics.refused("tcp", "accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(handshake) = next_handshake() => {
                connections.spawn_local(front::udp::serve(Rc::clone(worker), handshake));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

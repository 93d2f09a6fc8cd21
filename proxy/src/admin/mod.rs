//! The admin endpoint: health, figures, the records of exchanges, profiles, shutdown. On a thread that carries no traffic.

mod answer;
mod browsers;
mod figures;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokenlag_channel::http::{Incoming, ServerConnection};
use tokenlag_channel::{BaseUrl, ExchangeLimits, Stamping};
use tokenlag_dialect::Dialect;
use tokenlag_probes::clock::{Clock, MonoClock, Stamp, clock_name, wall_clock};
use tokio::net::TcpListener;
use tokio::select;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_local};
use tokio::time::timeout;

use crate::book::Book;
use crate::carried::{ByChannel, Thread, gathered};
use crate::options::ProxyOptions;
use crate::profiling::{self, Profiling};
use crate::proxy::Addresses;
use crate::usage::Watches;
pub(crate) use answer::Answer;
use answer::{PEM, TEXT};

/// How long `/config` waits for what is not known yet.
const FINDING: Duration = Duration::from_secs(1);

const INDEX: &str = "tokenlag proxy\n\n\
    GET  /live                      the process is up\n\
    GET  /ready                     new exchanges are taken (503 while draining)\n\
    GET  /metrics                   Prometheus text, or OpenMetrics with exemplars where it is asked for\n\
    GET  /exchanges?since=CURSOR    records of finished exchanges as NDJSON, the next cursor last\n\
    GET  /exchanges?trace=ID        the record of one exchange\n\
    GET  /histograms                HdrHistogram log of the proxy's own figures, one tag a channel and figure\n\
    GET  /config                    what the proxy was told, and what the upstream turned out to speak\n\
    GET  /distance                  how far the upstream is: the round trip of a connection that is made and closed\n\
    GET  /clock                     when this request came and when it was answered, by the clock that stamps exchanges\n\
    GET  /usage                     CPU time that the process used, and what its sockets did below their bytes, JSON\n\
    GET  /certificate               what QUIC clients must trust, PEM\n\
    GET  /debug/pprof/profile?seconds=N     what the process does meanwhile, for pprof's readers\n\
    GET  /debug/pprof/flamegraph?seconds=N  the same as a picture\n\
    POST /debug/pprof/start?seconds=N       begin a profile that is given up after so many\n\
    POST /debug/pprof/stop                  end it: what the process did since, for pprof's readers\n\
    POST /shutdown                  finish what is under way, then exit\n";

/// Answers on the admin address.
#[derive(Debug)]
pub(crate) struct Admin {
    book: Arc<Book>,
    /// Who has connections to the upstream.
    threads: Vec<Thread>,
    /// What they had carried when they were last asked.
    carried: RefCell<ByChannel>,
    config: serde_json::Map<String, Value>,
    upstream: BaseUrl,
    certificate: String,
    /// Where the reads of the upstream book how late they were.
    stamping: Stamping,
    /// The name of the clock that stamps exchanges.
    clock: Option<String>,
    started: (SystemTime, Stamp),
    /// It is on a loopback address.
    local: bool,
    profiling: Rc<Profiling>,
    allocations: Option<fn() -> u64>,
    watches: Watches,
}

impl Admin {
    pub(crate) fn new(
        book: Arc<Book>,
        threads: Vec<Thread>,
        options: &ProxyOptions,
        addresses: Addresses,
        certificate: &str,
        watches: Watches,
    ) -> Self {
        let told = json!({
            "listen": addresses.listen,
            "quic": addresses.quic,
            "admin": addresses.admin,
            "upstream": options.upstream.to_string(),
            "upstream_channel": options.upstream_channel.to_string(),
            "upstream_encoding": options.upstream_encoding.to_string(),
            "stamp": options.stamping.source(),
            "nagle": options.nagle,
            "state_at": options.state_at,
            "state_responses": options.state_limits.responses,
            "state_bytes": options.state_limits.bytes,
            "threads": options.threads,
            "exchanges": options.exchanges,
            "deltas": options.deltas,
            "connect_timeout_ms": options.patience.connect.as_millis() as u64,
            "idle_timeout_ms": options.patience.idle.as_millis() as u64,
            "grace_ms": options.grace.as_millis() as u64,
            "version": env!("CARGO_PKG_VERSION"),
        });
        let config = match told {
            Value::Object(members) => members,
            _ => serde_json::Map::new(),
        };
        Self {
            book,
            threads,
            carried: RefCell::default(),
            stamping: options.stamping.clone(),
            config,
            upstream: options.upstream.clone(),
            certificate: certificate.to_owned(),
            clock: clock_name(),
            started: (wall_clock(), MonoClock.now()),
            local: addresses.admin.ip().is_loopback(),
            profiling: Profiling::new(!addresses.admin.ip().is_loopback()),
            allocations: options.allocations,
            watches,
        }
    }

    /// Serves until somebody asks for the shutdown.
    pub(crate) async fn serve(
        self,
        listener: std::net::TcpListener,
        draining: watch::Receiver<bool>,
    ) {
        let Ok(listener) = TcpListener::from_std(listener) else {
            return std::future::pending().await;
        };
        let admin = Rc::new(self);
        let (stop, mut stopped) = mpsc::channel(1);
        // It goes on answering through the drain: that is when people ask whether the proxy is ready.
        spawn_local(async move {
            let mut connections = JoinSet::new();
            loop {
                select! {
                    accepted = listener.accept() => {
                        if let Ok((stream, _)) = accepted {
                            let serve = connection(
                                Rc::clone(&admin),
                                stream,
                                draining.clone(),
                                stop.clone(),
                            );
                            connections.spawn_local(serve);
                        }
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        stopped.recv().await;
    }

    /// The answer to a request that was whole at `received`.
    fn answer(&self, incoming: &Incoming, received: Stamp, draining: bool) -> Answer {
        let (path, query) = incoming
            .head
            .target
            .split_once('?')
            .unwrap_or((&incoming.head.target, ""));
        match (&*incoming.head.method, path) {
            ("GET" | "HEAD", "/") => Answer::ok(TEXT, INDEX),
            ("GET" | "HEAD", "/live") => Answer::ok(TEXT, "live\n"),
            ("GET" | "HEAD", "/ready") if draining => {
                Answer::error(503, "Service Unavailable", "draining")
            }
            ("GET" | "HEAD", "/ready") => Answer::ok(TEXT, "ready\n"),
            ("GET" | "HEAD", "/metrics") => self.metrics(incoming),
            ("GET" | "HEAD", "/config") => self.config(),
            ("GET" | "HEAD", "/clock") => self.clock(received),
            ("GET" | "HEAD", "/usage") => self.usage(),
            ("GET" | "HEAD", "/certificate") => Answer::ok(PEM, self.certificate.as_str()),
            ("GET" | "HEAD", "/exchanges") => self.exchanges(query),
            ("GET" | "HEAD", "/histograms") => self.histograms(),
            ("POST", "/shutdown") => Answer::ok(TEXT, "draining\n"),
            (_, "/shutdown") => Answer::error(405, "Method Not Allowed", "POST /shutdown"),
            _ => Answer::error(404, "Not Found", INDEX),
        }
    }

    /// Whoever asks is told what the upstream speaks, where that is soon found out. Going on without the answer, it goes on
    /// being looked for.
    async fn find_kind(&self) {
        let book = Arc::clone(&self.book);
        let found = spawn_local(async move {
            book.kinds.find(Dialect::Responses.path(), &[]).await;
        });
        let _ = timeout(FINDING, found).await;
    }

    /// Whoever asks for figures is told what was carried up to now.
    async fn gather(&self) {
        let carried = gathered(&self.threads).await;
        self.carried.replace(carried);
    }

    /// Why a request is not answered that acts on the process, or costs it time.
    fn refusal(&self, incoming: &Incoming) -> Option<Answer> {
        let path = incoming.head.path();
        let acts = matches!(path, "/shutdown" | "/distance") || path.starts_with(profiling::PATH);
        let why = browsers::refusal(&incoming.head.headers, self.local).filter(|_| acts);
        why.map(|why| Answer::error(403, "Forbidden", why))
    }
}

async fn connection(
    admin: Rc<Admin>,
    stream: tokio::net::TcpStream,
    draining: watch::Receiver<bool>,
    stop: mpsc::Sender<()>,
) {
    // A client that goes away has its reasons.
    let _ = converse(&admin, stream, draining, stop).await;
}

async fn converse(
    admin: &Admin,
    stream: tokio::net::TcpStream,
    draining: watch::Receiver<bool>,
    stop: mpsc::Sender<()>,
) -> io::Result<()> {
    let limits = ExchangeLimits {
        body: 64 * 1024,
        ..ExchangeLimits::default()
    };
    let mut client = ServerConnection::new(stream, limits)?;
    loop {
        let incoming = match client.next_request().await {
            Ok(Some(incoming)) => incoming,
            Ok(None) => return Ok(()),
            Err(error) => {
                if let Some((status, reason)) = error.status() {
                    let close = [("connection", "close")];
                    let why = format!("{error}\n");
                    client
                        .respond(status, reason, &close, why.as_bytes())
                        .await?;
                }
                return Ok(());
            }
        };
        // Nothing here has a body; one that is sent all the same is read past.
        if client.whole_body().await.is_err() {
            return Ok(());
        }
        match incoming.head.path() {
            "/config" => admin.find_kind().await,
            "/metrics" | "/usage" => admin.gather().await,
            _ => {}
        }
        let profile = incoming.head.path().strip_prefix(profiling::PATH);
        let answer = match (&*incoming.head.method, incoming.head.path()) {
            _ if let Some(refusal) = admin.refusal(&incoming) => refusal,
            ("GET" | "HEAD", "/distance") => admin.distance().await,
            (method, _) if let Some(path) = profile => {
                let query = incoming
                    .head
                    .target
                    .split_once('?')
                    .map_or("", |(_, it)| it);
                select! {
                    answer = admin.profiling.answer(method, path, query) => answer,
                    // Nobody waits for it any more: the process need not be sampled.
                    () = client.hung_up() => return Ok(()),
                }
            }
            _ => admin.answer(&incoming, client.read_at(), *draining.borrow()),
        };
        let mut fields = vec![("content-type", answer.kind), ("cache-control", "no-store")];
        if !incoming.head.keep_alive() {
            fields.push(("connection", "close"));
        }
        let body: &[u8] = if incoming.head.method == "HEAD" {
            b""
        } else {
            &answer.body
        };
        client
            .respond(answer.status, answer.reason, &fields, body)
            .await?;
        let asked = (&*incoming.head.method, incoming.head.path());
        if asked == ("POST", "/shutdown") && answer.status == 200 {
            // Another request for it may have come first.
            let _ = stop.try_send(());
        }
        if !incoming.head.keep_alive() {
            return Ok(());
        }
    }
}

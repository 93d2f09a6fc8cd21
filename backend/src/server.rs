//! `tokenlag backend`: binds, accepts, serves until told to stop, and drains.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokenlag_dialect::Limits;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet, LocalSet};

use crate::api::router::respond;
use crate::api::service::Service;
use crate::engine::{Engine, EngineOptions};
use crate::model::{Model, ModelError};

/// What a server serves, and within which limits.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// A GGUF file; `None` is the embedded model.
    pub model: Option<PathBuf>,
    /// Most tokens of a job, prompt and answer together; `None` is all that the engine takes.
    pub context: Option<usize>,
    /// Jobs that are computed at once.
    pub slots: usize,
    /// Jobs that may wait for a slot; further ones are refused with status 503.
    pub queue: usize,
    /// Prompt tokens that one step computes: more reads long prompts faster, fewer disturbs other streams less.
    pub prefill_chunk: usize,
    /// Most tokens of a chat or a response that names no limit. (A completion has OpenAI's 16.)
    pub max_tokens: usize,
    /// Most tokens a second of each sequence: the pace of a larger model. `None` is as fast as they are computed.
    pub tokens_per_second: Option<NonZeroU32>,
    /// How much is remembered of responses for `previous_response_id`.
    pub memory: Limits,
    /// How long work in flight may go on after the server was told to stop.
    pub grace: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        let engine = EngineOptions::default();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            model: None,
            context: engine.context,
            slots: engine.slots,
            queue: engine.queue,
            prefill_chunk: engine.prefill_chunk,
            max_tokens: 256,
            tokens_per_second: None,
            memory: Limits {
                responses: 4_096,
                bytes: 256 << 20,
            },
            grace: Duration::from_secs(10),
        }
    }
}

impl ServerOptions {
    /// Listens on the address.
    ///
    /// # Errors
    ///
    /// The address is taken, or not ours.
    pub fn bind(&self) -> Result<TcpListener, ServeError> {
        TcpListener::bind(self.listen).map_err(|source| ServeError::Bind {
            address: self.listen,
            source,
        })
    }

    /// Reads the model.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or holds no model that the engine computes.
    pub fn load(&self) -> Result<Arc<Model>, ServeError> {
        let model = match &self.model {
            Some(path) => Model::open(path)?,
            None => Model::embedded()?,
        };
        Ok(Arc::new(model))
    }
}

/// The server could not start, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address could not be listened on.
    #[error(
        "cannot listen on {address}: {source}; choose another address or stop what listens there"
    )]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The listener could not be used.
    #[error("the listening socket cannot be used: {0}")]
    Listener(io::Error),
    /// The model could not be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The engine's task ended, which it never should.
    #[error("the engine broke down: {0}; please report it with the request that did it")]
    Engine(#[from] JoinError),
}

/// Loads the model and serves connections of `listener` until `shutdown` resolves; then takes no new ones, lets work
/// in flight finish for `options.grace`, and cuts off the rest.
///
/// Everything runs on the calling task's thread: give it a `current_thread` runtime of its own.
///
/// # Errors
///
/// The model cannot be loaded, the listener cannot be used, or the engine breaks down.
pub async fn serve(
    options: ServerOptions,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let model = options.load()?;
    serve_model(model, options, listener, shutdown).await
}

/// Does what [`serve`] does with a model that is loaded already; `options.model` is not looked at.
///
/// # Errors
///
/// The listener cannot be used, or the engine breaks down.
pub async fn serve_model(
    model: Arc<Model>,
    options: ServerOptions,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let engine = EngineOptions {
        slots: options.slots,
        context: options.context,
        queue: options.queue,
        prefill_chunk: options.prefill_chunk,
    };
    let engine = Engine::new(model.clone(), engine);
    let service = Service::new(
        model,
        engine,
        options.memory,
        options.max_tokens,
        options.tokens_per_second,
    );
    listener
        .set_nonblocking(true)
        .map_err(ServeError::Listener)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(ServeError::Listener)?;
    let serving = async {
        let mut computing = tokio::task::spawn_local({
            let service = service.clone();
            async move { service.run_engine().await }
        });
        let (stop, stopping) = watch::channel(());
        let mut connections = tokio::select! {
            connections = accept(&service, &listener, &stopping, shutdown) => connections,
            Err(broken) = &mut computing => return Err(ServeError::Engine(broken)),
        };
        drop(listener);
        stop.send_replace(());
        let drained = async { while connections.join_next().await.is_some() {} };
        // What is not done by then is cut off: dropping the set ends its tasks.
        let _ = tokio::time::timeout(options.grace, drained).await;
        computing.abort();
        Ok(())
    };
    LocalSet::new().run_until(serving).await
}

/// Serves new connections until `shutdown` resolves; gives back the connections that are open then.
async fn accept(
    service: &Rc<Service>,
    listener: &tokio::net::TcpListener,
    stopping: &watch::Receiver<()>,
    shutdown: impl Future<Output = ()>,
) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return connections,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn_local(connection(service.clone(), stream, stopping.clone()));
                }
                // Out of file descriptors, most likely: a pause lets connections end, rather than to spin.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
        }
    }
}

/// How long to wait after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves one connection. Its end drops the request in flight, and with it the job.
async fn connection(service: Rc<Service>, stream: TcpStream, mut stopping: watch::Receiver<()>) {
    // A token must not wait for the one before it to be acknowledged. Failure means that the peer is gone already.
    let _ = stream.set_nodelay(true);
    let respond = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(respond(service, request).await) }
    });
    let mut serving = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), respond));
    // An error is the client's leaving, or bytes that are no HTTP: nobody is left to be told.
    tokio::select! {
        _ = &mut serving => {}
        _ = stopping.changed() => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}

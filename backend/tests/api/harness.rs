//! Starts a server for the length of one test.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokenlag_backend::{Model, ServerOptions, serve_model};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::client::Client;

/// How long a test may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running server.
pub(crate) struct Server {
    pub(crate) client: Client,
    stop: Option<oneshot::Sender<()>>,
}

impl Server {
    /// Tells the server to stop; it drains.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// A value of the metrics page.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let page = self.client.get("/metrics").await.text();
        let line = page
            .lines()
            .find(|line| line.split(' ').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in:\n{page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until a metric has a value.
    pub(crate) async fn until(&self, name: &str, value: u64) {
        while self.metric(name).await != value {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Runs a test against a server with these options, then stops the server and sees that it drains.
pub(crate) fn with_server<F: Future<Output = ()>>(
    options: ServerOptions,
    test: impl FnOnce(Server) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let work = async {
        let model = Arc::new(Model::embedded().unwrap());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        // Dropping the test's `Server` resolves it too.
        let shutdown = async { drop(stopped.await) };
        let serving = tokio::task::spawn_local(serve_model(model, options, listener, shutdown));
        let server = Server {
            client: Client::new(address),
            stop: Some(stop),
        };
        test(server).await;
        serving.await.unwrap().unwrap();
    };
    let patient = async { tokio::time::timeout(PATIENCE, work).await };
    let finished = LocalSet::new().block_on(&runtime, patient);
    finished.expect("the test or the server's drain took too long");
}

/// Runs a test against a server with the usual options.
pub(crate) fn check<F: Future<Output = ()>>(test: impl FnOnce(Server) -> F) {
    with_server(ServerOptions::default(), test);
}

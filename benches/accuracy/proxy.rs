//! The sidecar between generator and instrument, on threads of its own, and its stamps, fetched as users' runs fetch them.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use tokenlag_channel::tls::ClientTls;
use tokenlag_channel::{BaseUrl, Stamping};
use tokenlag_loadgen::Lane;
use tokenlag_probes::{Clock, HopExchange, MonoClock, StampSource, TraceId, Transport};
use tokenlag_proxy::{Addresses, Proxy, ProxyOptions, UpstreamApi};
use tokenlag_scripted::ScriptedBackend;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::cpu::{self, Cores};
use crate::generator::Lanes;

/// How long records may take to be booked after the client's end.
const LATE: Duration = Duration::from_secs(2);

pub struct RunningProxy {
    addresses: Addresses,
    lanes: Lanes,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RunningProxy {
    pub fn start(
        backend: &mut ScriptedBackend,
        upstream: Transport,
        stamp: StampSource,
        cores: Cores,
    ) -> Result<Self, String> {
        let plain = backend.address();
        let doors = backend.open_doors().map_err(|error| error.to_string())?;
        let address = match upstream {
            Transport::Http | Transport::HttpCold => plain,
            _ if upstream.is_encrypted_always() => doors.udp(),
            _ => doors.tcp(),
        };
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let base = BaseUrl::of(address.ip().to_string(), address.port());
        let mut options = ProxyOptions::new(any, base);
        options.admin = any;
        options.grace = Duration::ZERO;
        options.upstream_api = UpstreamApi::Responses;
        options.upstream_channel = upstream;
        options.stamping = Stamping::new(stamp);
        let trust = ClientTls::trusting(doors.certificate().as_bytes());
        options.upstream_tls = Some(trust.map_err(|error| error.to_string())?);
        let proxy = Proxy::bind(options).map_err(|error| error.to_string())?;
        let addresses = proxy.addresses();
        let quic = addresses.quic.ok_or("the proxy has no UDP door")?;
        let trust = ClientTls::trusting(proxy.certificate().as_bytes());
        let lanes = Lanes {
            http1: addresses.listen,
            tcp: addresses.listen,
            udp: quic,
            trust: trust.map_err(|error| error.to_string())?,
            stamp,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("proxy-admin".to_owned())
            .spawn(move || {
                cpu::bind(cores.proxy);
                serve(proxy, stopped);
            })
            .map_err(|error| error.to_string())?;
        Ok(Self {
            addresses,
            lanes,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub fn lane(&self, channel: Transport) -> Result<Lane, String> {
        self.lanes.lane(channel)
    }

    /// The records of those exchanges, as far as there are any.
    pub fn records(&self, mut wanted: HashSet<TraceId>) -> Result<Vec<HopExchange>, String> {
        let deadline = MonoClock.now() + LATE;
        let (mut records, mut next) = (Vec::new(), 0);
        while !wanted.is_empty() && MonoClock.now() < deadline {
            let page = self.get(&format!("/exchanges?since={next}"))?;
            let mut lines = page.lines().peekable();
            let mut read = 0;
            while let Some(line) = lines.next() {
                if lines.peek().is_none() {
                    let cursor: serde_json::Value =
                        serde_json::from_str(line).map_err(|error| error.to_string())?;
                    next = cursor["next"].as_u64().ok_or("no cursor")?;
                    break;
                }
                read += 1;
                let record: HopExchange =
                    serde_json::from_str(line).map_err(|error| error.to_string())?;
                if record.trace.is_some_and(|trace| wanted.remove(&trace)) {
                    records.push(record);
                }
            }
            if read == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(records)
    }

    fn get(&self, path: &str) -> Result<String, String> {
        let admin = self.addresses.admin;
        let failed = |error: std::io::Error| format!("http://{admin}{path}: {error}");
        let mut socket = TcpStream::connect(admin).map_err(failed)?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).map_err(failed)?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).map_err(failed)?;
        let (_, body) = answer
            .split_once("\r\n\r\n")
            .ok_or("an answer without a body")?;
        Ok(body.to_owned())
    }
}

fn serve(proxy: Proxy, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made where others were");
    let run = proxy.run(async {
        // A sender that is gone means the same.
        let _ = stopped.await;
    });
    if let Err(error) = LocalSet::new().block_on(&runtime, run) {
        eprintln!("the proxy: {error}");
    }
}

impl Drop for RunningProxy {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

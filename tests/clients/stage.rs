//! What a client meets: the embedded model, a proxy in front of it, and what the proxy booked.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{tokenlag, wait_until};

/// A `tokenlag` that serves; killed when dropped.
pub struct Served {
    process: Child,
    ready: Value,
}

impl Served {
    fn start(args: &[&str]) -> Self {
        let mut process = tokenlag(args)
            .arg("--report-ready")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let stdout = process.stdout.as_mut().expect("standard output is piped");
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the server speaks");
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| {
            let _ = process.kill();
            panic!("{args:?} did not say where it listens ({error}): {line:?}")
        });
        Self { process, ready }
    }

    fn address(&self, name: &str) -> &str {
        self.ready[name].as_str().expect("it says where it listens")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `tokenlag backend` with the embedded model.
pub struct Backend(Served);

impl Backend {
    /// Its answers end where the model ends them: a client that sets no limit wants no `incomplete` one.
    pub fn start() -> Self {
        let limit = ["--max-tokens", "16384"];
        Self(Served::start(
            &[&["backend", "--listen", "127.0.0.1:0"], &limit[..]].concat(),
        ))
    }

    /// As in `http://127.0.0.1:4000`.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.address("listen"))
    }
}

/// `tokenlag proxy`.
pub struct Proxy {
    served: Served,
    files: TempDir,
}

impl Proxy {
    pub fn start(upstream: &str) -> Self {
        Self::with(upstream, &[])
    }

    /// The same with further flags.
    pub fn with(upstream: &str, flags: &[&str]) -> Self {
        let identity =
            tokenlag_channel::tls::self_signed(&["127.0.0.1"]).expect("a certificate is made");
        let files = tempfile::tempdir().expect("there is room for files");
        let (cert, key) = (files.path().join(CERT), files.path().join("key.pem"));
        fs::write(&cert, identity.cert_pem).expect("the certificate is written");
        fs::write(&key, identity.key_pem).expect("the key is written");
        let (cert, key) = (cert.to_str().expect("text"), key.to_str().expect("text"));
        let any = "127.0.0.1:0";
        let own = [
            "proxy", "--listen", any, "--admin", any, "--cert", cert, "--key", key,
        ];
        let served = Served::start(&[&own[..], &["--upstream", upstream], flags].concat());
        Self { served, files }
    }

    /// Host and port.
    pub fn listen(&self) -> &str {
        self.served.address("listen")
    }

    /// As in `https://127.0.0.1:4000`.
    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.listen())
    }

    /// The file with what a client must trust, PEM.
    pub fn certificate(&self) -> String {
        let path = self.files.path().join(CERT);
        path.to_str().expect("text").to_owned()
    }

    /// The records of finished exchanges, once there are `count`; fails where there are others.
    ///
    /// A record is booked after its last byte: a client may be gone before.
    #[track_caller]
    pub fn records(&self, count: usize) -> Vec<Value> {
        let mut records = Vec::new();
        let what = format!("the proxy books {count} exchanges");
        wait_until(&what, Duration::from_secs(10), || {
            let page = get(self.served.address("admin"), "/exchanges").expect("the proxy answers");
            records = page
                .lines()
                .map(|line| serde_json::from_str(line).expect("a record is JSON"))
                .collect();
            // The last line is the cursor.
            records.pop();
            records.len() >= count
        });
        assert_eq!(records.len(), count, "{records:#?}");
        records
    }
}

const CERT: &str = "cert.pem";

/// The body of a page; `None` where the server does not answer, or with another status than 200.
pub fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    let (head, body) = reply.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

/// The channels of records, one after the other.
pub fn channels(records: &[Value]) -> Vec<&str> {
    records
        .iter()
        .map(|record| record["channel"].as_str().expect("a record has a channel"))
        .collect()
}

/// Fails unless every exchange came to its end.
#[track_caller]
pub fn assert_complete(records: &[Value]) {
    for record in records {
        assert_eq!(record["outcome"], "complete", "{record:#}");
    }
}

//! The proxies under test, each with one thread, on the same core, in front of the same origin.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use tokenlag_probes::{Clock, MonoClock};

use crate::cores::Cores;
use crate::install::Program;
use crate::process::Process;

/// How long one may take until it listens.
const READY: Duration = Duration::from_secs(10);

/// Someone who answers requests: a proxy, or the origin itself.
pub struct Side {
    pub name: &'static str,
    pub address: SocketAddr,
    /// Where it takes QUIC.
    pub quic: Option<SocketAddr>,
    /// `None`: the origin, which is not under test.
    pub process: Option<Process>,
}

/// What all of them need to start.
pub struct Ground<'a> {
    pub cores: Cores,
    /// For configurations and last words.
    pub folder: &'a Path,
}

impl Side {
    /// Without a proxy.
    pub fn direct(address: SocketAddr) -> Self {
        Self {
            name: "direct",
            address,
            quic: None,
            process: None,
        }
    }

    /// `tokenlag proxy` with its usual options, so with all its measuring on, and `more`.
    pub fn tokenlag(ground: &Ground<'_>, upstream: &str, more: &[&str]) -> Result<Self, String> {
        let mut arguments = vec!["proxy", "--report-ready", "--upstream", upstream];
        arguments.extend(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        arguments.extend(["--grace", "100ms"]);
        arguments.extend(more);
        let program = Program::at(env!("CARGO_BIN_EXE_tokenlag"));
        Self::that_says_where("tokenlag", &program, &arguments, ground)
    }

    /// A program that writes a line of JSON once it listens, with its address under `listen` or `quic`.
    pub fn that_says_where(
        name: &'static str,
        program: &Program,
        arguments: &[&str],
        ground: &Ground<'_>,
    ) -> Result<Self, String> {
        let core = ground.cores.tested;
        let mut process = Process::start(name, program, arguments, core, ground.folder)?;
        let line = process.first_line(MonoClock.now() + READY)?;
        let unclear = || {
            format!(
                "{name} does not say where it listens, but '{}'",
                line.trim()
            )
        };
        let said: serde_json::Value = serde_json::from_str(&line).map_err(|_| unclear())?;
        let address = |name: &str| said[name].as_str()?.parse::<SocketAddr>().ok();
        let quic = address("quic");
        Ok(Self {
            name,
            address: address("listen").or(quic).ok_or_else(unclear)?,
            quic,
            process: Some(process),
        })
    }

    /// haproxy: it keeps connections to the origin, and holds nothing back.
    pub fn haproxy(ground: &Ground<'_>, upstream: SocketAddr) -> Result<Self, String> {
        let address = free_port()?;
        let configuration = format!(
            "global\n  nbthread 1\n  maxconn 8000\n\
             defaults\n  mode http\n  timeout connect 5s\n  timeout client 5m\n  timeout server 5m\n  \
             option http-no-delay\n  http-reuse always\n\
             frontend door\n  bind {address}\n  default_backend origin\n\
             backend origin\n  server one {upstream} pool-purge-delay 5m\n"
        );
        let file = ground.folder.join("haproxy.cfg");
        let arguments = ["-db".as_ref(), "-f".as_ref(), file.as_os_str()];
        Self::with_configuration(
            "haproxy",
            &file,
            &configuration,
            &arguments,
            address,
            ground,
        )
    }

    /// nginx: the same. In one process, so that its memory is counted once; its worker is the same in both forms.
    pub fn nginx(ground: &Ground<'_>, upstream: SocketAddr) -> Result<Self, String> {
        let address = free_port()?;
        let folder = ground.folder.display();
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let folders: String = kinds
            .map(|kind| format!("  {kind}_temp_path {folder}/nginx-{kind};\n"))
            .concat();
        let configuration = format!(
            "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log stderr;\n\
             events {{ worker_connections 8192; }}\n\
             http {{\n  access_log off;\n{folders}  keepalive_requests 1000000000;\n  keepalive_timeout 1h;\n  \
             upstream origin {{\n    server {upstream};\n    keepalive 2048;\n    \
             keepalive_requests 1000000000;\n    keepalive_timeout 1h;\n  }}\n  \
             server {{\n    listen {address};\n    location / {{\n      proxy_pass http://origin;\n      \
             proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      \
             proxy_buffering off;\n      proxy_request_buffering off;\n    }}\n  }}\n}}\n"
        );
        let file = ground.folder.join("nginx.conf");
        let folder = ground.folder.as_os_str();
        let arguments = ["-e", "stderr", "-p"].map(AsRef::as_ref);
        let arguments = [&arguments[..], &[folder, "-c".as_ref(), file.as_os_str()]].concat();
        Self::with_configuration("nginx", &file, &configuration, &arguments, address, ground)
    }

    fn with_configuration(
        name: &'static str,
        file: &Path,
        configuration: &str,
        arguments: &[&std::ffi::OsStr],
        address: SocketAddr,
        ground: &Ground<'_>,
    ) -> Result<Self, String> {
        let program = Program::of_peer(name)?;
        fs::write(file, configuration).map_err(|error| format!("{}: {error}", file.display()))?;
        let core = ground.cores.tested;
        let mut process = Process::start(name, &program, arguments, core, ground.folder)?;
        let listens = || TcpStream::connect(address).is_ok();
        process.wait_until(listens, MonoClock.now() + READY)?;
        Ok(Self {
            name,
            address,
            quic: None,
            process: Some(process),
        })
    }
}

/// A port that nobody has at the moment: those whose own word cannot be read are told one.
fn free_port() -> Result<SocketAddr, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("there is no free port: {error}"))
}

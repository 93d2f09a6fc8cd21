//! The relay beside relays of the bare libraries: the same job without measuring, limits and translation. Each runs in a
//! process of its own, as the proxy does: the bench starts itself with [`WORD`].

mod http;
mod quic;
mod ws;

use std::fs;
use std::net::SocketAddr;

use tokenlag_channel::tls::{ClientTls, self_signed};
use tokenlag_probes::Transport;
use tokio::task::LocalSet;

use crate::install::Program;
use crate::origin::{Origin, WHOLE};
use crate::sides::Side;
use crate::streams::{Door, Streams};
use crate::table::Goal;
use crate::{Bench, cores, proxy, sse};

/// What makes the bench a relay: `relay KIND UPSTREAM [CERTIFICATE KEY TRUST]`.
pub const WORD: &str = "relay";

/// Of CPU and delay.
const MOST: f64 = 1.15;

/// Runs a relay until it is ended. The first line it writes says where it listens.
pub fn relay(words: &[String]) -> Result<(), String> {
    let [kind, upstream, files @ ..] = words else {
        return Err("relay KIND UPSTREAM [CERTIFICATE KEY TRUST]".to_owned());
    };
    let upstream: SocketAddr = upstream
        .parse()
        .map_err(|_| format!("'{upstream}' is no address"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let work = async {
        match (kind.as_str(), files) {
            ("hyper", []) => http::relay(upstream).await,
            ("tungstenite", []) => ws::relay(upstream).await,
            ("quinn", [certificate, key, trust]) => {
                let read =
                    |path: &String| fs::read(path).map_err(|error| format!("{path}: {error}"));
                let files = [read(certificate)?, read(key)?, read(trust)?];
                quic::relay(upstream, files).await
            }
            _ => Err(format!("'{kind}' is no relay, or its files are missing")),
        }
    };
    LocalSet::new().block_on(&runtime, work)
}

/// Tells the bench where a relay listens.
fn announce(listen: SocketAddr) {
    println!("{}", serde_json::json!({ "listen": listen.to_string() }));
}

/// The part.
pub fn part(bench: &mut Bench<'_>) -> Result<(), String> {
    if bench.wanted.has_peer("hyper") {
        over_http(bench)?;
    }
    let (ws, quic) = (
        bench.wanted.has_peer("tungstenite"),
        bench.wanted.has_peer("quinn"),
    );
    if !ws && !quic {
        return Ok(());
    }
    let mut backend = sse::backend(bench)?;
    // The doors' thread, too, stays where the one is that starts it.
    cores::bind(bench.ground.cores.origin)?;
    let doors = backend.open_doors();
    cores::bind(bench.ground.cores.generator)?;
    let doors = doors.map_err(|error| format!("the backend's doors do not open: {error}"))?;
    let (tcp, udp) = (doors.tcp(), doors.udp());
    let of_backend = doors.certificate().to_owned();
    if ws {
        let url = format!("http://{tcp}");
        let more = ["--no-quic", "--upstream-api", "websocket"];
        let sides = [
            Side::direct(tcp),
            Side::tokenlag(&bench.ground, &url, &more)?,
            bare(bench, "tungstenite", tcp, &[])?,
        ];
        let mut sides = sides.map(|side| {
            let door = Door {
                transport: Transport::Ws,
                address: side.address,
                trust: None,
            };
            (side, door)
        });
        streams(bench, "tungstenite", &backend, &mut sides)?;
    }
    if quic {
        let ours = self_signed(&["localhost", "127.0.0.1"]).map_err(|error| error.to_string())?;
        let write = |name: &str, text: &str| {
            let path = bench.ground.folder.join(name);
            let written = fs::write(&path, text);
            written.map_err(|error| format!("{}: {error}", path.display()))?;
            Ok::<_, String>(path.display().to_string())
        };
        let certificate = write("certificate.pem", &ours.cert_pem)?;
        let key = write("key.pem", &ours.key_pem)?;
        let trusted = write("backend.pem", &of_backend)?;
        let files = [&*certificate, &*key, &*trusted];
        let url = format!("http://{udp}");
        let more = [
            "--upstream-channel",
            "quic",
            "--upstream-api",
            "responses",
            "--quic",
            "127.0.0.1:0",
        ];
        let names = [
            "--cert",
            &certificate,
            "--key",
            &key,
            "--upstream-trust",
            &trusted,
        ];
        let more = [&more[..], &names].concat();
        let sides = [
            (Side::direct(udp), &of_backend),
            (Side::tokenlag(&bench.ground, &url, &more)?, &ours.cert_pem),
            (bare(bench, "quinn", udp, &files)?, &ours.cert_pem),
        ];
        let mut with_doors = Vec::new();
        for (side, trust) in sides {
            let trust = ClientTls::trusting(trust.as_bytes()).map_err(|error| error.to_string())?;
            let door = Door {
                transport: Transport::Quic,
                address: side.quic.unwrap_or(side.address),
                trust: Some(trust),
            };
            with_doors.push((side, door));
        }
        streams(bench, "quinn", &backend, &mut with_doors)?;
    }
    Ok(())
}

fn over_http(bench: &mut Bench<'_>) -> Result<(), String> {
    let origin = Origin::start("application/json", WHOLE, bench.ground.cores.origin)?;
    let url = format!("http://{}", origin.address());
    let mut sides = [
        Side::direct(origin.address()),
        Side::tokenlag(&bench.ground, &url, &["--no-quic"])?,
        bare(bench, "hyper", origin.address(), &[])?,
    ];
    let goals = [Goal {
        against: "hyper",
        ratio: MOST,
    }];
    proxy::compare(
        bench,
        "the relay and hyper, plain requests",
        &origin,
        &mut sides,
        &goals,
    )?;
    drop((sides, origin));

    let backend = sse::backend(bench)?;
    let sides = [
        Side::direct(backend.address()),
        Side::tokenlag(&bench.ground, &backend.url(), &["--no-quic"])?,
        bare(bench, "hyper", backend.address(), &[])?,
    ];
    let mut sides = sides.map(|side| {
        let door = Door::http(side.address);
        (side, door)
    });
    streams(bench, "hyper", &backend, &mut sides)
}

fn streams(
    bench: &mut Bench<'_>,
    name: &'static str,
    backend: &tokenlag_scripted::ScriptedBackend,
    sides: &mut [(Side, Door)],
) -> Result<(), String> {
    let cell = Streams::USUAL;
    let title = format!("the relay and {name}, streams {}", cell.name());
    let goals = [Goal {
        against: name,
        ratio: MOST,
    }];
    sse::compare(bench, &title, backend, sides, cell, (&goals, false))
}

/// Starts a relay of that library.
fn bare(
    bench: &Bench<'_>,
    kind: &'static str,
    upstream: SocketAddr,
    files: &[&str],
) -> Result<Side, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let upstream = upstream.to_string();
    let arguments = [&[WORD, kind, &upstream][..], files].concat();
    Side::that_says_where(kind, &Program::at(program), &arguments, &bench.ground)
}

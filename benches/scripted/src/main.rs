//! Runs the scripted backend by hand: `tokenlag-scripted [ADDRESS [SCRIPT]]`.

use std::net::SocketAddr;
use std::process::ExitCode;

use tokenlag_scripted::{Script, ScriptedBackend};

const USAGE: &str = "usage: tokenlag-scripted [ADDRESS [SCRIPT]]\n\
                     for example: tokenlag-scripted 127.0.0.1:8001 ttft=50ms,gap=10ms,tokens=64";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or("127.0.0.1:8001".to_owned());
    let script = arguments.next().unwrap_or_default();
    let started = address
        .parse::<SocketAddr>()
        .map_err(|error| format!("'{address}': {error}\n{USAGE}"))
        .and_then(|address| {
            let script: Script = script
                .parse()
                .map_err(|error| format!("{error}\n{USAGE}"))?;
            ScriptedBackend::start_on(address, script)
                .map_err(|error| format!("cannot listen on {address}: {error}"))
        });
    match started {
        Ok(backend) => {
            eprintln!("scripted backend on {}; interrupt to end", backend.url());
            loop {
                std::thread::park();
            }
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

//! Runs the scripted backend by hand: `tokenlag-scripted [ADDRESS [SCRIPT]]`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use tokenlag_scripted::{Pace, Script, ScriptedBackend};

/// How often it says how late it was.
const TELL: Duration = Duration::from_secs(5);

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
            ScriptedBackend::start_with(address, script, Pace::RealTime)
                .map_err(|error| format!("cannot listen on {address}: {error}"))
        });
    match started {
        Ok(mut backend) => {
            eprintln!("scripted backend on {}; interrupt to end", backend.url());
            match backend.open_doors() {
                Ok(doors) => eprintln!(
                    "HTTP/2 and WebSocket on {}; HTTP/3 and QUIC on {}",
                    doors.tcp(),
                    doors.udp()
                ),
                Err(error) => eprintln!("no doors for other channels: {error}"),
            }
            loop {
                std::thread::sleep(TELL);
                let late = backend.take_lateness();
                if late.emissions > 0 {
                    eprintln!("{late}");
                }
            }
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

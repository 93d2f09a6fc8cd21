//! The certificate of one run, on disk for as long as its proxy needs to read it, where nobody else can.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use tokenlag_channel::tls;

/// How often another name is tried where one is taken.
const ATTEMPTS: u32 = 64;

/// A self-signed certificate and its key as files.
pub struct Identity {
    folder: PathBuf,
}

impl Identity {
    /// A new one, for a proxy on this host, and behind a link at the address that it has there.
    pub fn create(behind: Option<Ipv4Addr>) -> anyhow::Result<Self> {
        let behind = behind.map(|address| address.to_string());
        let mut names = vec!["localhost", "127.0.0.1"];
        names.extend(behind.as_deref());
        let made = tls::self_signed(&names)?;
        let folder = private_folder().context("cannot make a folder for temporary files")?;
        let identity = Self { folder };
        write(&identity.cert(), made.cert_pem.as_bytes())?;
        write(&identity.key(), made.key_pem.as_bytes())?;
        Ok(identity)
    }

    /// The certificate's file.
    pub fn cert(&self) -> PathBuf {
        self.folder.join("cert.pem")
    }

    /// The key's file.
    pub fn key(&self) -> PathBuf {
        self.folder.join("key.pem")
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        // What cannot be removed is worth little: only this run trusts it.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn private_folder() -> io::Result<PathBuf> {
    let mut taken = io::Error::from(io::ErrorKind::AlreadyExists);
    for attempt in 0..ATTEMPTS {
        let name = format!("tokenlag-{}-{attempt}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}

fn write(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(text))
        .with_context(|| format!("cannot write {}", path.display()))
}

//! The folder of perf's own files, in a run's.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::Context;

/// Names that are tried for its folder.
const NAMES: u32 = 100;

/// Where perf's files are, while there are any: a folder that was made for them, and nobody else's.
pub struct Folder(PathBuf);

impl Folder {
    /// One in `place`, under the first name that is not taken.
    ///
    /// # Errors
    /// It cannot be made, or every name is taken.
    pub fn make(place: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(place).with_context(|| format!("cannot make {}", place.display()))?;
        for number in 0..NAMES {
            let path = place.join(format!(".perf-{number}"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    let shown = path.display();
                    return Err(error).with_context(|| format!("cannot make {shown}"));
                }
            }
        }
        anyhow::bail!(
            "cannot make a folder for perf in {}: .perf-0 to .perf-{} are there already; remove those that no run uses",
            place.display(),
            NAMES - 1
        )
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It is perf's own format, and big: nobody asked for it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_the_runs_folder_already_stays() {
        let place = tempfile::tempdir().unwrap();
        let theirs = [place.path().join("perf"), place.path().join(".perf-0")];
        for folder in &theirs {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("mine"), "kept").unwrap();
        }
        let folder = Folder::make(place.path()).unwrap();
        let other = Folder::make(place.path()).unwrap();
        let ours = [folder.0.clone(), other.0.clone()];
        assert_ne!(ours[0], ours[1]);
        fs::write(ours[0].join("data"), "samples").unwrap();
        drop((folder, other));
        assert!(ours.iter().all(|folder| !folder.exists()));
        for folder in &theirs {
            assert_eq!(fs::read_to_string(folder.join("mine")).unwrap(), "kept");
        }
        let file = place.path().join("file");
        fs::write(&file, "in the way").unwrap();
        assert!(Folder::make(&file).is_err());
    }

    #[test]
    fn every_name_taken_is_said() {
        let place = tempfile::tempdir().unwrap();
        let all: Vec<Folder> = (0..NAMES)
            .map(|_| Folder::make(place.path()).unwrap())
            .collect();
        let told = Folder::make(place.path()).err().unwrap().to_string();
        assert!(told.contains("remove those"), "{told}");
        drop(all);
        assert!(Folder::make(place.path()).is_ok());
    }
}

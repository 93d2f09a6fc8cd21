//! This program's own file, for the processes that run it once more.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Leads to the file that this process runs, also where its path leads to another by now, or to none.
const RUNNING: &str = "/proc/self/exe";

/// Starts it once more by `spawn`, which is given the file.
///
/// # Errors
/// The system does not know the file, or `spawn` fails.
pub fn again<T>(spawn: impl Fn(&Path) -> io::Result<T>) -> anyhow::Result<T> {
    let started = match spawn(&own()?) {
        // Removed since it was looked at.
        Err(error) if error.kind() == ErrorKind::NotFound => spawn(Path::new(RUNNING)),
        other => other,
    };
    Ok(started?)
}

/// The file. It has its name, by which users know a process, unless it was replaced or removed since it was started, as by a
/// build beside a run of hours.
fn own() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe().context("cannot find this program's own file")?;
    Ok(match is_one_file(&path, Path::new(RUNNING)) {
        true => path,
        false => RUNNING.into(),
    })
}

fn is_one_file(one: &Path, other: &Path) -> bool {
    let identity = |file: Metadata| (file.dev(), file.ino());
    let (one, other) = (fs::metadata(one), fs::metadata(other));
    one.ok()
        .zip(other.ok())
        .is_some_and(|(one, other)| identity(one) == identity(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_removed_as_it_is_started_is_found_all_the_same() {
        let tried = std::cell::RefCell::new(Vec::new());
        let spawn = |program: &Path| {
            tried.borrow_mut().push(program.to_owned());
            match tried.borrow().len() {
                1 => Err(ErrorKind::NotFound.into()),
                _ => Ok(()),
            }
        };
        again(spawn).unwrap();
        assert_eq!(tried.take(), [own().unwrap(), RUNNING.into()]);
        assert!(again(|_| Err::<(), _>(ErrorKind::PermissionDenied.into())).is_err());
    }

    #[test]
    fn a_program_that_is_where_it_was_goes_by_its_name() {
        assert_eq!(own().unwrap(), std::env::current_exe().unwrap());
        assert!(!is_one_file(Path::new("/no/such/file"), Path::new(RUNNING)));
        assert!(!is_one_file(
            Path::new("/proc/self/status"),
            Path::new(RUNNING)
        ));
    }
}

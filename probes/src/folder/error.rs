//! What can go wrong with a run's folder, with the file's name and what to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::metric::Metric;
use crate::row::Row;

/// A run's folder could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The folder holds a run already, and runs are never overwritten.
    #[error("{} already holds a run; choose another folder with --out, or remove it", .0.display())]
    Occupied(PathBuf),
    /// A file or folder could not be made or written.
    #[error("cannot write {}: {cause}; {}", .path.display(), remedy(.cause))]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {}: {cause}; is this the folder of a run (runs/<time>-<command>)?", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// A file is not what its name says.
    #[error("{} is damaged or of another version: {reason}; read it with the version of tokenlag that wrote it", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A histogram log holds another number of values than the manifest counted.
    #[error(
        "{} holds {found} values of {metric} of {row} in block {block}, and run.json counted {expected}: the file is cut, \
         missing or of another run; copy the run's folder again, whole",
        .path.display()
    )]
    Count {
        /// The log.
        path: PathBuf,
        /// The figure.
        metric: Metric,
        /// The row.
        row: Row,
        /// The block.
        block: u32,
        /// Values in the log.
        found: u64,
        /// Values that were counted when it was written.
        expected: u64,
    },
}

fn remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space, or choose a folder on another disk with --out"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "choose a folder that you may write to with --out"
        }
        _ => "choose another folder with --out",
    }
}

/// Names the file that an error of writing is about.
pub(super) fn writing(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |cause| FolderError::Write { path, cause }
}

/// Names the file that an error of reading is about.
pub(super) fn reading(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |cause| FolderError::Read { path, cause }
}

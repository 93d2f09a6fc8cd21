//! How many files the bench's processes may have open: at the proxy each active connection is two.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Files that a process has besides.
const OTHERS: u64 = 200;

/// Lets this process, and those that it starts, have so many files for connections.
///
/// # Errors
/// The system allows fewer; says how many are needed.
pub fn open(connections: u64) -> Result<(), String> {
    let needed = connections + OTHERS;
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    let (soft, hard) =
        limit.map_err(|error| format!("the limit of open files is not known: {error}"))?;
    if soft >= needed {
        return Ok(());
    }
    // Beyond the hard limit only root may go.
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed)).map_err(|_| {
        format!(
            "they need {needed} open files and this process may have {hard}; raise it with `ulimit -Hn {needed}` as root, or ask for fewer"
        )
    })
}

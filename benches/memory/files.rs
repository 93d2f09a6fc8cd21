//! How many files the bench's processes may have open: at the proxy each active connection is two.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Files that a process has besides.
const OTHERS: u64 = 200;

/// Lets this process, and those that it starts, have so many connections with `each` files: the soft limit goes up to the hard one, and
/// the hard one up where this process may do that.
///
/// # Errors
/// The system allows fewer; says how many are needed, and the command that raises the limit.
pub fn open(connections: u64, each: u64) -> Result<(), String> {
    let needed = connections * each + OTHERS;
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    let (soft, hard) =
        limit.map_err(|error| format!("the limit of open files is not known: {error}"))?;
    let may_have = |files| setrlimit(Resource::RLIMIT_NOFILE, files, files.max(hard)).is_ok();
    // Beyond the hard limit only root may go, and in many containers not even root.
    if soft >= needed || (hard >= needed && may_have(hard)) || may_have(needed) {
        return Ok(());
    }
    Err(format!(
        "they need {needed} open files and this process may have {hard}; `sudo prlimit --pid $$ --nofile={needed}:{needed}` raises that for \
         this shell (a container whose root may not is started with `--ulimit nofile={needed}`), or ask for {} or fewer",
        hard.saturating_sub(OTHERS) / each
    ))
}

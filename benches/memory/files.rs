//! How many files the bench's processes may have open: at the proxy each active connection is two.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Files that a process has besides.
const OTHERS: u64 = 200;

/// Lets this process, and those that it starts, have so many connections and as many others to an upstream for those of them that
/// are active; tells how many can be: all of them, where the system lets them. The soft limit goes up to the hard one, and the
/// hard one up where this process may do that.
///
/// # Errors
/// The system does not even allow the connections; says how many files are needed, and the command that raises the limit.
pub fn active(connections: u64) -> Result<u64, String> {
    let needed = 2 * connections + OTHERS;
    let limit = getrlimit(Resource::RLIMIT_NOFILE);
    let (soft, hard) =
        limit.map_err(|error| format!("the limit of open files is not known: {error}"))?;
    let may_have = |files| setrlimit(Resource::RLIMIT_NOFILE, files, files.max(hard)).is_ok();
    // Beyond the hard limit only root may go, and in many containers not even root.
    if soft >= needed || (hard >= needed && may_have(hard)) || may_have(needed) {
        return Ok(connections);
    }
    match hard.saturating_sub(OTHERS + connections) {
        0 => Err(format!(
            "they need {} open files and this process may have {hard}; {}",
            connections + OTHERS + 1,
            remedy(needed)
        )),
        active => {
            may_have(hard);
            eprintln!(
                "{active} of {connections} connections can be active with {hard} open files; {}",
                remedy(needed)
            );
            Ok(active)
        }
    }
}

fn remedy(needed: u64) -> String {
    format!(
        "`sudo prlimit --pid $$ --nofile={needed}:{needed}` raises that for this shell (a container whose root may not is started \
         with `--ulimit nofile={needed}`)"
    )
}

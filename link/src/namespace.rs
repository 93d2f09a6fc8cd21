//! Network namespaces, held by a file descriptor alone: when the last process that holds one ends, however it ends, the kernel
//! takes the namespace away with all that is in it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::{io, thread};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CloneFlags, setns};

/// A network namespace.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// The one that the calling thread is in.
    ///
    /// # Errors
    /// The system's own.
    pub fn current() -> io::Result<Self> {
        File::open("/proc/thread-self/ns/net").map(Self)
    }

    /// The same one, held once more.
    ///
    /// # Errors
    /// The system's own.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// The one behind a descriptor that this process inherited.
    ///
    /// # Errors
    /// It has no such descriptor.
    pub fn inherited(descriptor: i32) -> io::Result<Self> {
        File::open(format!("/proc/self/fd/{descriptor}")).map(Self)
    }

    /// A descriptor's number that every process started from now on inherits, for [`Namespace::inherited`] there. It lives as
    /// long as the returned file.
    ///
    /// # Errors
    /// The system's own.
    pub fn to_inherit(&self) -> io::Result<Inheritable> {
        let file = self.0.try_clone()?;
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(Inheritable(file))
    }

    /// What it is known by among all that are there now; `None` where the system does not tell.
    pub(crate) fn identity(&self) -> Option<(u64, u64)> {
        let file = self.0.metadata().ok()?;
        Some((file.dev(), file.ino()))
    }

    /// The calling thread is in it from now on, and so are the threads and processes that it starts.
    ///
    /// # Errors
    /// It is refused.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.0, CloneFlags::CLONE_NEWNET)?)
    }

    /// Does `work` in it, on a thread of its own: whatever happens there, the calling thread stays where it is. Sockets stay
    /// in the namespace in which they were made.
    ///
    /// # Errors
    /// The namespace cannot be entered, or no thread can be started.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_a_thread(|| {
            self.enter()?;
            Ok(work())
        })
    }
}

/// A namespace's descriptor that children inherit.
#[derive(Debug)]
pub struct Inheritable(File);

impl Inheritable {
    /// Its number, here and in the children.
    pub fn number(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// Does `work` on a thread that ends with it.
pub(crate) fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_that_nobody_gave_is_an_error() {
        assert!(Namespace::inherited(9_999).is_err());
        let here = Namespace::current().unwrap();
        let given = here.to_inherit().unwrap();
        assert!(Namespace::inherited(given.number()).is_ok());
    }
}

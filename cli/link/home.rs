//! Where this thread came from before it entered a link's namespace: what it asks beside its load is asked from there.

use std::cell::OnceCell;
use std::pin::pin;
use std::task::Poll;
use std::{future, io};

use tokenlag_link::Namespace;

/// The two namespaces of a thread that went behind a link.
struct Places {
    home: Namespace,
    behind: Namespace,
}

thread_local! {
    /// As the namespace itself is: a thread's own.
    static PLACES: OnceCell<Places> = const { OnceCell::new() };
}

/// The calling thread goes behind the link, to the namespace `behind`: what it dials from now on goes over the link.
///
/// # Errors
/// The namespace cannot be entered, or the thread is behind a link already.
pub fn leave_for(behind: Namespace) -> io::Result<()> {
    let home = Namespace::current()?;
    behind.enter()?;
    let left = PLACES.with(|places| places.set(Places { home, behind }));
    left.map_err(|_| io::Error::other("the thread is behind a link already"))
}

/// Does `work` as it would be done without a link: sockets that it makes are of the namespace that the thread came from.
///
/// # Errors
/// The thread may not go there any more.
pub async fn from_home<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let mut work = pin!(work);
    future::poll_fn(|context| {
        PLACES.with(|places| match places.get() {
            None => work.as_mut().poll(context).map(Ok),
            Some(Places { home, behind }) => {
                if let Err(error) = home.enter() {
                    return Poll::Ready(Err(refused(&error)));
                }
                let polled = work.as_mut().poll(context);
                behind
                    .enter()
                    .expect("the namespace was entered before, and is held");
                polled.map(Ok)
            }
        })
    })
    .await
}

fn refused(error: &io::Error) -> anyhow::Error {
    anyhow::anyhow!(
        "cannot go back from the emulated link to the host's network, where stamps and health are asked for: {error}; leave this \
         process CAP_SYS_ADMIN for as long as it runs, or run without --link"
    )
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[tokio::test]
    async fn a_way_home_that_is_refused_is_said() {
        assert_eq!(from_home(async { 7 }).await.unwrap(), 7, "without a link");
        // No namespace at all, so the system refuses it as it does one that may not be entered any more.
        let file = tempfile::tempfile().unwrap();
        let places = Places {
            home: Namespace::inherited(file.as_raw_fd()).unwrap(),
            behind: Namespace::current().unwrap(),
        };
        assert!(PLACES.with(|own| own.set(places)).is_ok());
        let told = from_home(async { 7 }).await.unwrap_err().to_string();
        assert!(
            told.contains("cannot go back from the emulated link"),
            "{told}"
        );
        assert!(told.contains("leave this process CAP_SYS_ADMIN"), "{told}");
    }
}

//! Where this thread came from before it entered a link's namespace: what it asks beside its load is asked from there.

use std::cell::OnceCell;
use std::pin::pin;
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
pub async fn from_home<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    future::poll_fn(|context| {
        PLACES.with(|places| match places.get() {
            None => work.as_mut().poll(context),
            Some(Places { home, behind }) => {
                // Where the way home is refused, the work finds nothing there, and says so.
                let _ = home.enter();
                let polled = work.as_mut().poll(context);
                behind
                    .enter()
                    .expect("the namespace was entered before, and is held");
                polled
            }
        })
    })
    .await
}

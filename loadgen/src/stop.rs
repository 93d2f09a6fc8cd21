//! A flag that ends a run at once: raised by Ctrl-C, by a child's death, by a disk that is full.

use std::time::Duration;

use tokio::sync::watch;

/// The side that raises the flag. Dropping it raises nothing.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// The side that heeds it.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// A flag that is down, and its two sides.
pub fn stop() -> (Stopper, Stop) {
    let (raise, heed) = watch::channel(false);
    (Stopper(raise), Stop(heed))
}

impl Stopper {
    /// Raises the flag, for good.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// The flag is up.
    pub fn is_raised(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when the flag goes up; never, if nobody can raise it any more.
    pub async fn raised(&self) {
        let mut heed = self.0.clone();
        if heed.wait_for(|&raised| raised).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Does `work`, unless and until the flag is up: then `None`, and the work is dropped.
    pub async fn or<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.raised() => None,
            done = work => Some(done),
        }
    }

    /// Does `work` to its end, for which it has `grace` once the flag is up: then `None`, and the work is dropped.
    pub async fn or_within<T>(&self, grace: Duration, work: impl Future<Output = T>) -> Option<T> {
        let given_up = async {
            self.raised().await;
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = given_up => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn work_is_dropped_once_the_flag_is_up() {
        let (stopper, stop) = stop();
        assert_eq!(stop.or(async { 1 }).await, Some(1));
        stopper.stop();
        assert!(stop.is_raised());
        assert_eq!(stop.or(std::future::pending::<u8>()).await, None);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn work_that_may_end_has_a_little_time() {
        let (stopper, stop) = stop();
        let short = Duration::from_millis(20);
        let work = || tokio::time::sleep(short / 4);
        assert_eq!(stop.or_within(short, work()).await, Some(()));
        stopper.stop();
        assert_eq!(stop.or_within(short, work()).await, Some(()));
        let endless = std::future::pending::<()>();
        assert_eq!(stop.or_within(short, endless).await, None);
    }
}

//! Work beside the traffic: on a thread of its own, and no more urgent than it has to be.

use std::thread;

use thread_priority::unix::{
    NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};
use thread_priority::{ThreadPriority, ThreadPriorityValue};
use tokio::sync::oneshot;

/// How urgent some work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Haste {
    /// It runs when nothing else wants its core (SCHED_IDLE): on a core that is always busy it gets next to nothing.
    None,
    /// It has some tenth of a core that others want (nice 9).
    Little,
    /// It has its turn as the traffic has.
    Usual,
}

/// The thread could not be started, or fell over its work.
#[derive(Debug)]
pub(crate) struct Died;

impl Haste {
    /// A system that does not allow it has the work done in its turn.
    fn take(self) {
        let (policy, priority) = match self {
            Self::None => (NormalThreadSchedulePolicy::Idle, ThreadPriority::Min),
            Self::Little => {
                let Ok(little) = ThreadPriorityValue::try_from(LITTLE) else {
                    return;
                };
                let little = ThreadPriority::Crossplatform(little);
                (NormalThreadSchedulePolicy::Other, little)
            }
            Self::Usual => return,
        };
        let policy = ThreadSchedulePolicy::Normal(policy);
        let _ = set_thread_priority_and_policy(thread_native_id(), priority, policy);
    }
}

/// Of a scale from 0 (nice 19) to 99 (nice -20).
const LITTLE: u8 = 25;

/// Does `work` there: what takes tenths of a second shall not keep tokens waiting, nor those who ask for health.
///
/// # Errors
/// There is no such thread, or it fell.
pub(crate) async fn beside<T: Send + 'static>(
    haste: Haste,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Died> {
    let (tell, told) = oneshot::channel();
    let thread = thread::Builder::new().name("profile".to_owned());
    let started = thread.spawn(move || {
        haste.take();
        // Where nobody waits any more what was done is dropped.
        let _ = tell.send(work());
    });
    started.map_err(|_| Died)?;
    told.await.map_err(|_| Died)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Policy and niceness of the calling thread, as proc_pid_stat(5) has them.
    fn scheduled() -> (u32, i32) {
        let text = fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields: Vec<&str> = text
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .collect();
        // The text after the name begins with field 3.
        (
            fields[41 - 3].parse().unwrap(),
            fields[19 - 3].parse().unwrap(),
        )
    }

    #[tokio::test]
    async fn threads_are_as_urgent_as_they_were_to_be() {
        let (usual, here) = (beside(Haste::Usual, scheduled).await.unwrap(), scheduled());
        assert_eq!(usual, here);
        let (policy, nice) = beside(Haste::Little, scheduled).await.unwrap();
        assert_eq!(policy, 0, "SCHED_OTHER");
        assert!((5..15).contains(&nice), "{nice}");
        let (policy, _) = beside(Haste::None, scheduled).await.unwrap();
        assert_eq!(policy, 5, "SCHED_IDLE");
        // The one that asked is what it was.
        assert_eq!(scheduled(), here);
    }

    #[tokio::test]
    async fn work_that_panics_is_an_error() {
        let fallen = beside(Haste::Usual, || panic!("on purpose")).await;
        assert!(fallen.is_err());
    }
}

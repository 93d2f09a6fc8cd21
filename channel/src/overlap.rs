//! Whether a reply began before its request had ended.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// Waits for the beginning of a reply, and tells also whether it was there already. Asked for as soon as the request's last
/// byte was handed over, what is there came before that byte could be read.
pub(crate) async fn watched<T>(mut reply: impl Future<Output = T> + Unpin) -> (T, bool) {
    let mut there = true;
    poll_fn(|context| {
        let polled = Pin::new(&mut reply).poll(context);
        match polled {
            Poll::Ready(reply) => Poll::Ready((reply, there)),
            Poll::Pending => {
                there = false;
                Poll::Pending
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_waited_for_was_not_there() {
        assert_eq!(watched(std::future::ready(7)).await, (7, true));
        let later = Box::pin(async {
            tokio::task::yield_now().await;
            7
        });
        assert_eq!(watched(later).await, (7, false));
    }
}

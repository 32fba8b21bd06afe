//! The time that one query may take, from its start to its last batch.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::{Error, Result};

/// The end of a query's time. Work that is ready too late does not count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    /// `limit` from now.
    pub(crate) fn after(limit: Duration) -> Deadline {
        Deadline { at: Instant::now() + limit, limit }
    }

    /// Does `work` unless the time is up before or while it is done. As cancel safe as the work.
    ///
    /// # Errors
    /// [`Error::QueryTimeout`].
    pub(crate) async fn bound<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let expired = || Error::QueryTimeout { seconds: self.limit.as_secs() };
        // a future that is ready at its first poll would win over a limit that has passed
        if Instant::now() >= self.at {
            return Err(expired());
        }
        tokio::time::timeout_at(self.at, work).await.map_err(|_| expired())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_is_ready_does_not_outrun_a_limit_that_has_passed() {
        let deadline = Deadline::after(Duration::ZERO);
        assert!(matches!(deadline.bound(async {}).await, Err(Error::QueryTimeout { seconds: 0 })));
        tokio::time::pause();
        let deadline = Deadline::after(Duration::from_secs(30));
        tokio::time::advance(Duration::from_millis(29_999)).await;
        assert!(deadline.bound(async {}).await.is_ok());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(matches!(deadline.bound(async {}).await, Err(Error::QueryTimeout { seconds: 30 })));
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_never_ends_is_stopped_at_the_limit() {
        let deadline = Deadline::after(Duration::from_secs(30));
        let began = Instant::now();
        let stopped = deadline.bound(std::future::pending::<()>()).await;
        assert!(matches!(stopped, Err(Error::QueryTimeout { .. })));
        assert_eq!(began.elapsed().as_secs(), 30);
    }
}

//! Whether a store far away answers, asked by somebody who can wait for it without holding others up.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// Where the answer goes: nothing more to say, or why not.
pub(super) type Reply = oneshot::Sender<Result<(), String>>;

/// A question that is on its way.
pub(crate) struct Asked {
    answer: oneshot::Receiver<Result<(), String>>,
    patience: Duration,
}

impl Asked {
    pub(super) fn within(patience: Duration) -> (Reply, Self) {
        let (reply, answer) = oneshot::channel();
        (reply, Self { answer, patience })
    }

    /// One that needs no question.
    pub(crate) fn known(answer: Result<(), String>) -> Self {
        let (reply, asked) = Self::within(Duration::ZERO);
        // Its other end is in scope.
        let _ = reply.send(answer);
        asked
    }

    /// Why not, if it does not.
    pub(crate) async fn answer(self) -> Result<(), String> {
        match timeout(self.patience, self.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err("the connection was lost meanwhile".into()),
            Err(_) => Err(format!("no answer within {:?}", self.patience)),
        }
    }
}

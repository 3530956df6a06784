//! Calls to TaskManagers about their logs, until they are answered.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use millstream_client::proto::v1::{self, log_answer::Answer, log_call::Call};
use millstream_model::id::TaskManagerId;
use tokio::{sync::oneshot, time::timeout};

/// A TaskManager that reads many logs at once, of a slow disk, is still not taken for dumb.
const PATIENCE: Duration = Duration::from_secs(30);

/// The calls that wait.
#[derive(Default)]
pub(super) struct LogCalls(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    next: u64,
    calls: HashMap<u64, (TaskManagerId, oneshot::Sender<Answer>)>,
}

/// An answer that is to come.
pub(super) struct Pending<'a> {
    calls: &'a LogCalls,
    id: u64,
    answer: oneshot::Receiver<Answer>,
}

impl LogCalls {
    /// Makes a call ready to be sent.
    pub(super) fn begin(&self, to: TaskManagerId, call: Call) -> (v1::LogCall, Pending<'_>) {
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.lock();
        waiting.next += 1;
        let id = waiting.next;
        waiting.calls.insert(id, (to, sender));
        (v1::LogCall { call_id: id, call: Some(call) }, Pending { calls: self, id, answer })
    }

    /// A TaskManager has answered. What nobody waits for any more is dropped.
    pub(super) fn on_answer(&self, from: TaskManagerId, answer: v1::LogAnswer) {
        let mut waiting = self.lock();
        if waiting.calls.get(&answer.call_id).is_some_and(|(to, _)| *to == from)
            && let Some((_, sender)) = waiting.calls.remove(&answer.call_id)
            && let Some(answer) = answer.answer
        {
            let _ = sender.send(answer);
        }
    }

    /// A TaskManager answers nothing any more.
    pub(super) fn on_gone(&self, id: TaskManagerId) {
        self.lock().calls.retain(|_, (to, _)| *to != id);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending<'_> {
    /// The answer.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn wait(mut self) -> Result<Answer, String> {
        match timeout(PATIENCE, &mut self.answer).await {
            Ok(Ok(Answer::Failure(why))) => Err(why),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err("it is gone".to_owned()),
            Err(_) => Err(format!("it has not answered within {PATIENCE:?}")),
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.calls.lock().calls.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call {
        Call::ReadPage(v1::ReadLogPage::default())
    }

    fn answer(id: u64) -> v1::LogAnswer {
        v1::LogAnswer { call_id: id, answer: Some(Answer::Page(v1::LogPage::default())) }
    }

    #[tokio::test]
    async fn an_answer_is_for_who_has_asked_and_from_whom_was_asked() {
        let calls = LogCalls::default();
        let (first, pending) = calls.begin(TaskManagerId(1), call());
        calls.on_answer(TaskManagerId(2), answer(first.call_id));
        calls.on_answer(TaskManagerId(1), answer(first.call_id + 1));
        assert_eq!(calls.lock().calls.len(), 1);
        calls.on_answer(TaskManagerId(1), answer(first.call_id));
        assert!(pending.wait().await.is_ok());
        let (_, pending) = calls.begin(TaskManagerId(1), call());
        calls.on_gone(TaskManagerId(1));
        assert_eq!(pending.wait().await.unwrap_err(), "it is gone");
        drop(calls.begin(TaskManagerId(1), call()));
        assert!(calls.lock().calls.is_empty(), "nobody waits for it");
    }
}

//! What goes on at one connection, and when it has been idle for so long that its place is for somebody else.
//!
//! Invariant: a request counts until its answer is sent or given up, so that no stream of events is ever idle.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tokio::sync::watch;

/// Until the first request.
const FIRST: Duration = Duration::from_secs(10);
/// From one request to the next.
const NEXT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, Default)]
struct Requests {
    running: usize,
    begun: u64,
}

/// The requests of one connection.
#[derive(Debug, Clone, Default)]
pub struct Activity(watch::Sender<Requests>);

/// One request, which runs until this goes away.
#[derive(Debug)]
pub struct Running(Activity);

impl Activity {
    pub fn begin(&self) -> Running {
        self.0.send_modify(|requests| {
            requests.running += 1;
            requests.begun += 1;
        });
        Running(self.clone())
    }

    /// Returns when nothing ran for too long.
    pub async fn until_idle(&self) {
        let mut requests = self.0.subscribe();
        loop {
            // The sender lives as long as this.
            let Ok(quiet) = requests.wait_for(|now| now.running == 0).await.map(|now| *now) else {
                return;
            };
            let patience = if quiet.begun == 0 { FIRST } else { NEXT };
            let next = requests.wait_for(|now| now.begun != quiet.begun);
            if tokio::time::timeout(patience, next).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.send_modify(|requests| requests.running -= 1);
    }
}

impl Running {
    /// Runs on until the answer's body has been sent.
    pub fn until_sent(self, response: Response) -> Response {
        response.map(|body| Body::new(Sending { body, _running: self }))
    }
}

/// A body that is being sent.
struct Sending {
    body: Body,
    _running: Running,
}

impl hyper::body::Body for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_only_while_nothing_runs() {
        let activity = Activity::default();
        let running = activity.begin();
        let mut idle = Box::pin(activity.until_idle());
        assert!((&mut idle).now_or_never().is_none());
        tokio::time::advance(10 * NEXT).await;
        assert!((&mut idle).now_or_never().is_none(), "its answer is not sent yet");
        let response = running.until_sent(Response::new(Body::from("x")));
        assert!((&mut idle).now_or_never().is_none());
        drop(response);
        let before = tokio::time::Instant::now();
        idle.await;
        assert_eq!(before.elapsed().as_secs(), NEXT.as_secs());
    }
}

//! Following the events, over lost connections and restarts of the appliance.
//!
//! Every event is told once and in order: after a loss the stream goes on behind the last one told.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::time::{sleep, timeout};

use super::call::Call;
use super::error::ClientError;
use super::sse::{Frame, Frames};
use super::{Client, Request};
use crate::events::{Event, EventFilter};
use crate::operations::ListEvents;

/// A stream that says nothing for so long, not even that it is there, is lost.
const SILENCE: Duration = Duration::from_secs(60);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Client {
    /// The events that `filter` lets through, after `filter.after` or from now on. Ends with the first error: one that
    /// does not pass by itself, or any where the stream could not even be opened.
    pub fn follow_events(
        &self,
        filter: EventFilter,
    ) -> impl Stream<Item = Result<Event, ClientError>> + use<> {
        let following = Following {
            client: self.clone(),
            filter,
            last: None,
            open: None,
            frames: VecDeque::new(),
            was_open: false,
            ended: false,
        };
        unfold(following, async |mut following| {
            if following.ended {
                return None;
            }
            let next = following.next().await;
            following.ended = next.is_err();
            Some((next, following))
        })
    }
}

struct Following {
    client: Client,
    filter: EventFilter,
    /// Id of the last frame that was taken.
    last: Option<String>,
    open: Option<(reqwest::Response, Frames)>,
    frames: VecDeque<Frame>,
    was_open: bool,
    ended: bool,
}

impl Following {
    async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            while let Some(frame) = self.frames.pop_front() {
                self.last = frame.id.or(self.last.take());
                if !frame.data.is_empty() {
                    let event = serde_json::from_str(&frame.data);
                    return event.map_err(|_| ClientError::not_ours(self.client.place(), 200, &frame.data));
                }
            }
            self.listen().await?;
        }
    }

    /// Takes what the stream says next; opens it where it is not.
    async fn listen(&mut self) -> Result<(), ClientError> {
        let (mut response, mut frames) = match self.open.take() {
            Some(open) => open,
            None => (self.connect().await?, Frames::default()),
        };
        if let Ok(Ok(Some(bytes))) = timeout(SILENCE, response.chunk()).await {
            self.frames.extend(frames.push(&bytes));
            self.open = Some((response, frames));
        }
        Ok(())
    }

    async fn connect(&mut self) -> Result<reqwest::Response, ClientError> {
        let mut pause = self.client.repeats().pause;
        loop {
            let mut request = Request::new(
                &self.client,
                Call::<ListEvents>::at(&[]).query(self.filter.clone()),
            )?;
            request.stream(self.last.as_deref());
            match self.client.send(&request).await {
                Ok(response) => {
                    self.was_open = true;
                    return Ok(response);
                }
                Err(error) if self.was_open && error.passes() => {
                    sleep(pause).await;
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

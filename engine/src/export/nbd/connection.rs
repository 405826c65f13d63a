//! One connection's transmission: reads requests, runs them, sends replies, over any byte stream.
//!
//! One task does all of it. Every request that one receive brought is started at once; the replies of those that are
//! ready then, or became ready since, go out in one gathered send.
//!
//! Invariants: requests and payload in flight are bounded ([`MAX_RUNNING`], [`MAX_PAYLOAD`], and as much again in
//! replies that the client does not take); at the bound nothing more is received. However the connection ends, requests
//! that were started run to their end before [`transmit`] gives up the attachment.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::client_socket::ClientSocket;
use super::negotiation::Agreed;
use super::pacer::Pacer;
use super::reply::Replies;
use super::request_slots::{MAX_RUNNING, RequestSlots};
use super::serve::{Served, Session, serve};
use super::transmission::{Command, Request, RequestReader, TransmissionError};
use crate::export::Target;
use crate::export::registry::{Attachment, EndSignal};

/// Payload of running requests and of unsent replies, each, beyond which no more is received.
const MAX_PAYLOAD: u64 = 64 << 20;
/// How many slices of unsent replies stop receiving.
const MAX_UNSENT_SLICES: usize = 4 * MAX_RUNNING;
/// How long the last replies may take to send.
const LINGER: Duration = Duration::from_secs(5);

/// How often the socket is asked before other tasks have their turn, where a connection polls: each time in vain, or
/// answered.
const ASKED_AT_A_TIME: u32 = 16;

/// A client's byte stream.
pub trait ClientStream: AsyncRead + AsyncWrite + Unpin {
    /// The socket that brings just these bytes, where there is one: it can be asked without the runtime.
    fn socket(&self) -> Option<&ClientSocket>;
}

impl ClientStream for ClientSocket {
    fn socket(&self) -> Option<&ClientSocket> {
        Some(self)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientStream for TlsStream<S> {
    fn socket(&self) -> Option<&ClientSocket> {
        None
    }
}

impl ClientStream for DuplexStream {
    fn socket(&self) -> Option<&ClientSocket> {
        None
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("the client disconnected")]
    Disconnected,
    #[error("the client closed the connection without a word")]
    Closed,
    #[error("the server ended it")]
    Asked,
    #[error("the connection failed: {0}")]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Protocol(#[from] TransmissionError),
}

/// Serves the attached export on `stream` until the connection ends. `begun` are bytes of the client's that were
/// received already.
pub async fn transmit<S, T>(
    stream: &mut S,
    attachment: Attachment<T>,
    agreed: Agreed,
    begun: &[u8],
    end: &Arc<EndSignal>,
) -> Ended
where
    S: ClientStream,
    T: Target,
{
    let export = attachment.export();
    let session = Rc::new(Session {
        target: Arc::clone(&export.target),
        read_only: export.access.read_only,
        contexts: agreed.contexts,
        counters: Arc::clone(&export.counters),
        losses: Cell::new(export.target.losses()),
    });
    let mut transmission = Transmission {
        stream,
        end,
        reader: RequestReader::new(agreed.mode, begun),
        slots: RequestSlots::new(),
        start: |request| serve(Rc::clone(&session), request),
        replies: Replies::new(agreed.mode),
        payload: 0,
        pacer: Pacer::new(export.polling),
        ended: None,
    };
    let ended = poll_fn(|context| transmission.poll(context)).await;
    let Transmission {
        stream, mut replies, ..
    } = transmission;
    // Before the last replies are sent: who takes over must not wait for a client that does not read.
    drop(attachment);
    if !matches!(ended, Ended::Socket(_)) {
        let sent = tokio::time::timeout(LINGER, async {
            poll_fn(|context| poll_send(stream, &mut replies, context)).await?;
            stream.shutdown().await
        });
        let _gone_either_way = sent.await;
    }
    ended
}

struct Transmission<'a, S, F, M> {
    stream: &'a mut S,
    end: &'a EndSignal,
    reader: RequestReader,
    slots: RequestSlots<F>,
    start: M,
    replies: Replies,
    /// Payload of running requests.
    payload: u64,
    pacer: Pacer,
    /// Nothing more is received once this is set.
    ended: Option<Ended>,
}

impl<S, F, M> Transmission<'_, S, F, M>
where
    S: ClientStream,
    F: Future<Output = Served>,
    M: Fn(Request) -> F,
{
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Ended> {
        if self.ended.is_none() && self.end.poll_given(context).is_ready() {
            self.ended = Some(Ended::Asked);
        }
        let mut progress = self.collect(context);
        let mut answered = 0;
        loop {
            let received = self.receive(context);
            let held_back = !self.may_start();
            if let Poll::Ready(Err(error)) = poll_send(self.stream, &mut self.replies, context) {
                self.ended = Some(error.into());
            }
            if self.slots.running() == 0
                && let Some(ended) = self.ended.take()
            {
                return Poll::Ready(ended);
            }
            let may_go_on = held_back && self.may_start();
            progress |= received || may_go_on;
            if !received && !may_go_on {
                if std::mem::take(&mut progress) {
                    self.pacer.out_of_work(self.waits_for_client());
                }
                // The runtime's own bound on a task that always has work does not see what is received here.
                if answered == ASKED_AT_A_TIME || !self.ask_again() {
                    break;
                }
                answered += 1;
                progress = true;
            }
            // What was received may have completed others, and slots are needed for what comes next.
            progress |= self.collect(context);
        }
        self.poll_before_sleep(context);
        Poll::Pending
    }

    /// Queues the replies of waiting requests that are ready now. Whether there were any.
    fn collect(&mut self, context: &Context<'_>) -> bool {
        let (payload, replies) = (&mut self.payload, &mut self.replies);
        let mut any = false;
        self.slots.poll_woken(context, |served| {
            *payload -= served.payload;
            replies.push(served.reply);
            any = true;
        });
        any
    }

    fn may_start(&self) -> bool {
        self.ended.is_none()
            && !self.slots.is_full()
            && self.payload < MAX_PAYLOAD
            && (self.replies.len() as u64) < MAX_PAYLOAD
            && self.replies.slices() < MAX_UNSENT_SLICES
    }

    /// Starts what is there, receives once, and starts what that brought. Whether anything was.
    fn receive(&mut self, context: &mut Context<'_>) -> bool {
        let started = self.start_requests();
        if !self.may_start() {
            return started;
        }
        let mut space = ReadBuf::new(self.reader.space());
        match Pin::new(&mut *self.stream).poll_read(context, &mut space) {
            Poll::Pending => return started,
            Poll::Ready(answer) => {
                let answer = answer.map(|()| space.filled().len());
                self.take_in(answer);
            }
        }
        true
    }

    /// Starts what a receive brought.
    fn take_in(&mut self, answer: io::Result<usize>) {
        match answer {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => self.ended = Some(error.into()),
            Ok(0) => self.ended = Some(Ended::Closed),
            Ok(count) => {
                self.pacer.received();
                self.reader.received(count);
                self.start_requests();
            }
        }
    }

    fn start_requests(&mut self) -> bool {
        let mut any = false;
        while self.may_start() {
            match self.reader.next() {
                Ok(None) => break,
                Ok(Some(Request {
                    command: Command::Disconnect,
                    ..
                })) => self.ended = Some(Ended::Disconnected),
                Ok(Some(request)) => {
                    self.pacer.begun();
                    let payload = request.payload();
                    match self.slots.start((self.start)(request)) {
                        Some(served) => self.replies.push(served.reply),
                        None => self.payload += payload,
                    }
                }
                Err(error) => self.ended = Some(error.into()),
            }
            any = true;
        }
        any
    }

    /// Nothing but a new request can happen.
    fn waits_for_client(&self) -> bool {
        self.slots.running() == 0 && self.replies.is_empty()
    }

    /// Where the export polls for it: whether the socket, asked a few times more, brought something.
    fn ask_again(&mut self) -> bool {
        if !self.waits_for_client() || !self.may_start() || !self.pacer.polls() {
            return false;
        }
        for _ in 0..ASKED_AT_A_TIME {
            let Some(socket) = self.stream.socket() else {
                return false;
            };
            match socket.receive(self.reader.space()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::hint::spin_loop(),
                answer => {
                    self.take_in(answer);
                    return true;
                }
            }
        }
        false
    }

    /// Comes back after the runtime has looked at its sockets and timers once, as long as the export wants that.
    fn poll_before_sleep(&mut self, context: &mut Context<'_>) {
        if self.ended.is_none() && self.pacer.polls() {
            let again = pin!(tokio::task::yield_now()).poll(context);
            debug_assert!(again.is_pending(), "a task yields at its first poll");
        }
    }
}

/// Sends until nothing is left or the stream takes no more.
fn poll_send<S>(stream: &mut S, replies: &mut Replies, context: &mut Context<'_>) -> Poll<io::Result<()>>
where
    S: AsyncWrite + Unpin,
{
    while !replies.is_empty() {
        let count = ready!(Pin::new(&mut *stream).poll_write_vectored(context, &replies.gather()))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        replies.sent(count);
    }
    Pin::new(stream).poll_flush(context)
}

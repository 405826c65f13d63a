//! One connection in use: requests are queued and sent in batches, replies answered as they come.
//!
//! A [`Connection`] is the handle through which requests are submitted; its [`Driver`] moves the bytes and is run as
//! a task on the same thread.
//!
//! Invariants: every request is answered exactly once; it is sent at most once; after the connection has ended,
//! everything in flight and everything submitted later is answered [`RequestError::Gone`]. Deadlines are the caller's.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use smallvec::SmallVec;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::sync::oneshot;

use super::negotiation::ExportInfo;
use super::replies::{Finished, Outcome, Replies, RequestError};
use super::requests::{Command, Header};
use super::transport::Stream;
use crate::io::BufSlice;

/// Bytes received at once.
const RECEIVE_BUFFER: usize = 256 << 10;
/// Pieces of requests sent at once.
const PIECES_AT_ONCE: usize = 64;

/// Where the outcome of a request goes. Called on the connection's thread, and not from within a submission unless
/// the connection has already ended.
pub trait Answer {
    fn answer(self, outcome: Outcome);
}

impl Answer for oneshot::Sender<Outcome> {
    fn answer(self, outcome: Outcome) {
        // Nobody waits any more: the outcome is of no interest.
        let _ = self.send(outcome);
    }
}

enum Piece {
    Header(Header),
    Payload(BufSlice),
}

impl Piece {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Header(header) => header.as_slice(),
            Self::Payload(payload) => payload.as_slice(),
        }
    }
}

struct Shared<A> {
    export: ExportInfo,
    replies: Replies<A>,
    outgoing: VecDeque<Piece>,
    /// Bytes of the first outgoing piece that are sent.
    sent: usize,
    next_cookie: u64,
    driver: Option<Waker>,
    closing: bool,
    /// Why the connection has ended.
    gone: Option<Arc<str>>,
}

impl<A> Shared<A> {
    fn wake(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    fn enqueue(&mut self, command: Command, answer: A) {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        let (header, payload) = command.encode(self.export.dialect, cookie);
        self.outgoing.push_back(Piece::Header(header));
        self.outgoing
            .extend(payload.filter(|payload| !payload.is_empty()).map(Piece::Payload));
        self.replies.expect(cookie, command.expected(), answer);
        self.wake();
    }

    /// Forgets the first `count` outgoing bytes.
    fn advance(&mut self, count: usize) {
        self.sent += count;
        while let Some(first) = self.outgoing.front().map(|piece| piece.as_slice().len()) {
            if self.sent < first {
                break;
            }
            self.sent -= first;
            self.outgoing.pop_front();
        }
    }
}

struct Handle<A>(Rc<RefCell<Shared<A>>>);

impl<A> Drop for Handle<A> {
    fn drop(&mut self) {
        let mut shared = self.0.borrow_mut();
        shared.closing = true;
        shared.wake();
    }
}

/// The handle of a connection. When the last clone is dropped, the connection is closed.
pub struct Connection<A>(Rc<Handle<A>>);

impl<A> Clone for Connection<A> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<A: Answer> Connection<A> {
    /// A connection over a stream that negotiated `export`. Nothing moves before the driver runs.
    pub fn new(stream: Box<dyn Stream>, export: ExportInfo) -> (Self, Driver<A>) {
        let shared = Rc::new(RefCell::new(Shared {
            export,
            replies: Replies::new(export.dialect, export.context),
            outgoing: VecDeque::new(),
            sent: 0,
            next_cookie: 0,
            driver: None,
            closing: false,
            gone: None,
        }));
        let driver = Driver {
            shared: Rc::clone(&shared),
            stream,
            received: vec![0; RECEIVE_BUFFER].into(),
            finished: Vec::new(),
            unflushed: false,
        };
        (Self(Rc::new(Handle(shared))), driver)
    }

    pub fn export(&self) -> ExportInfo {
        self.0.0.borrow().export
    }

    /// Queues a request; `answer` gets its outcome.
    pub fn submit(&self, command: Command, answer: A) {
        let gone = {
            let mut shared = self.0.0.borrow_mut();
            match &shared.gone {
                None => return shared.enqueue(command, answer),
                Some(why) => Arc::clone(why),
            }
        };
        answer.answer(Err(RequestError::Gone(gone)));
    }

    /// Ends the connection: politely where nothing is in flight, else at once, and what is in flight fails.
    pub fn close(&self) {
        let mut shared = self.0.0.borrow_mut();
        shared.closing = true;
        shared.wake();
    }
}

impl<A: Answer + From<oneshot::Sender<Outcome>>> Connection<A> {
    /// Queues a request and waits for its outcome. The request goes out also where the future is dropped.
    pub fn call(&self, command: Command) -> impl Future<Output = Outcome> + use<A> {
        let (answer, outcome) = oneshot::channel();
        self.submit(command, answer.into());
        async move {
            outcome
                .await
                .unwrap_or_else(|_| Err(RequestError::Gone("the connection's task has ended".into())))
        }
    }
}

/// Moves the bytes of one connection.
pub struct Driver<A: Answer> {
    shared: Rc<RefCell<Shared<A>>>,
    stream: Box<dyn Stream>,
    received: Box<[u8]>,
    finished: Vec<Finished<A>>,
    /// The stream may hold bytes back (TLS does) until it is flushed.
    unflushed: bool,
}

impl<A: Answer> Driver<A> {
    /// Runs until the connection has ended, and returns why; by then everything in flight has been answered.
    pub async fn run(mut self) -> Arc<str> {
        let why = poll_fn(|cx| self.poll(cx)).await;
        self.end(&why);
        why
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Arc<str>> {
        self.shared.borrow_mut().driver = Some(cx.waker().clone());
        if self.shared.borrow().closing {
            return self.poll_close(cx);
        }
        loop {
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                return Poll::Ready(format!("sending failed: {error}").into());
            }
            if let Err(why) = ready!(self.poll_receive(cx)) {
                return Poll::Ready(why);
            }
        }
    }

    /// Sends all that is queued.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.shared.borrow_mut();
        while !shared.outgoing.is_empty() {
            let mut slices: SmallVec<[IoSlice<'_>; PIECES_AT_ONCE]> = shared
                .outgoing
                .iter()
                .take(PIECES_AT_ONCE)
                .map(|piece| IoSlice::new(piece.as_slice()))
                .collect();
            slices[0] = IoSlice::new(&shared.outgoing[0].as_slice()[shared.sent..]);
            let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices))?;
            drop(slices);
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            shared.advance(count);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Receives once and answers what that finished.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Arc<str>>> {
        let mut buffer = ReadBuf::new(&mut self.received);
        if let Err(error) = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
            return Poll::Ready(Err(format!("receiving failed: {error}").into()));
        }
        if buffer.filled().is_empty() {
            return Poll::Ready(Err("the server closed the connection".into()));
        }
        let result = self
            .shared
            .borrow_mut()
            .replies
            .receive(buffer.filled(), &mut self.finished);
        for Finished { token, outcome } in self.finished.drain(..) {
            token.answer(outcome);
        }
        Poll::Ready(result.map_err(|error| format!("the server broke the protocol: {error}").into()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Arc<str>> {
        const CLOSED: &str = "the connection was closed here";
        {
            let mut shared = self.shared.borrow_mut();
            if !shared.replies.is_empty() {
                return Poll::Ready(CLOSED.into());
            }
            if shared.gone.is_none() {
                shared.gone = Some(CLOSED.into());
                let goodbye = Header::disconnect(shared.export.dialect);
                shared.outgoing.push_back(Piece::Header(goodbye));
            }
        }
        // A server that is no longer there to hear the goodbye does not matter.
        if ready!(self.poll_send(cx)).is_ok() {
            let _ = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
        }
        Poll::Ready(CLOSED.into())
    }

    fn end(&self, why: &Arc<str>) {
        let abandoned = {
            let mut shared = self.shared.borrow_mut();
            shared.gone.get_or_insert_with(|| Arc::clone(why));
            shared.outgoing.clear();
            shared.replies.abandon()
        };
        for answer in abandoned {
            answer.answer(Err(RequestError::Gone(Arc::clone(why))));
        }
    }
}

impl<A: Answer> Drop for Driver<A> {
    fn drop(&mut self) {
        self.end(&"the connection's task was dropped".into());
    }
}

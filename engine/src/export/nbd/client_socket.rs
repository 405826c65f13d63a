//! A client's socket, TCP or Unix, as a byte stream that wakes its connection only for what it waits for.
//!
//! A Unix socket tells its writer each time that the reader takes something. A stream that is registered for both
//! directions is therefore woken for every reply that the client reads, only to find no request yet. Here the event
//! queue knows of writing only while a send is stopped by a full socket.
//!
//! Invariant: whoever is told `Pending` is woken: readiness is cleared only after the socket said that it has no more,
//! or gave less than was asked for, and either comes before the next event.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::Socket;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// One connected socket.
#[derive(Debug)]
pub struct ClientSocket {
    readable: AsyncFd<Socket>,
    /// The same socket, while it is full.
    writable: Option<AsyncFd<Socket>>,
}

impl ClientSocket {
    /// Takes a connected socket into the runtime that this is called in.
    ///
    /// # Errors
    /// Where the operating system does not take it into the event queue.
    pub fn new(socket: Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            readable: watch(socket, Interest::READABLE)?,
            writable: None,
        })
    }

    /// Receives what is there now. To be asked without regard to the event queue.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there.
    pub fn receive(&self, space: &mut [u8]) -> io::Result<usize> {
        self.readable.get_ref().read(space)
    }

    /// Sends until the socket takes something.
    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        send: impl Fn(&Socket) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match send(self.readable.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                sent => return Poll::Ready(sent),
            }
            let writable = match &self.writable {
                Some(writable) => writable,
                None => {
                    let same = self.readable.get_ref().try_clone()?;
                    self.writable.insert(watch(same, Interest::WRITABLE)?)
                }
            };
            ready!(writable.poll_write_ready(context))?.clear_ready();
        }
    }
}

#[expect(
    deprecated,
    reason = "what took its place is unsafe, for descriptors that close or change; a socket here does neither"
)]
fn watch(socket: Socket, interest: Interest) -> io::Result<AsyncFd<Socket>> {
    AsyncFd::with_interest(socket, interest)
}

impl AsyncRead for ClientSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.readable.poll_read_ready(context))?;
            let unfilled = space.initialize_unfilled();
            let room = unfilled.len();
            match self.receive(unfilled) {
                Ok(count) => {
                    // Less than there was room for: all that there was. The end stays readable.
                    if 0 < count && count < room {
                        ready.clear_ready();
                    }
                    space.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, |mut socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, |mut socket| socket.write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Everything is sent at once; this says that no more comes for now.
    fn poll_flush(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writable = None;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.readable.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Type};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn pair() -> (ClientSocket, ClientSocket) {
        let (one, other) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        (ClientSocket::new(one).unwrap(), ClientSocket::new(other).unwrap())
    }

    #[tokio::test]
    async fn more_than_the_socket_holds_arrives_whole() {
        let (mut sender, mut receiver) = pair();
        let bytes: Vec<u8> = (0..8u32 << 20)
            .map(|at| at.to_le_bytes()[at as usize % 3])
            .collect();
        let send = async {
            sender.write_all(&bytes).await.unwrap();
            sender.flush().await.unwrap();
            sender.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (sent, read) = tokio::join!(send, receiver.read_to_end(&mut received));
        let () = sent;
        assert_eq!(read.unwrap(), bytes.len());
        assert!(received == bytes);
    }

    #[tokio::test]
    async fn one_who_waits_to_receive_is_woken_by_each_message() {
        let (mut asker, mut answerer) = pair();
        let answers = async {
            let mut question = [0; 4];
            for _ in 0..1000 {
                answerer.read_exact(&mut question).await.unwrap();
                answerer.write_all(&question).await.unwrap();
                answerer.flush().await.unwrap();
            }
        };
        let asks = async {
            let mut answer = [0; 64];
            for number in 0..1000u32 {
                asker.write_all(&number.to_le_bytes()).await.unwrap();
                let count = asker.read(&mut answer).await.unwrap();
                assert_eq!(&answer[..count], number.to_le_bytes());
            }
        };
        tokio::join!(answers, asks);
    }

    #[tokio::test]
    async fn asking_without_the_event_queue_takes_nothing_from_it() {
        let (mut sender, mut receiver) = pair();
        let mut space = [0; 16];
        let nothing = receiver.receive(&mut space).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        sender.write_all(b"one").await.unwrap();
        assert_eq!(receiver.receive(&mut space).unwrap(), 3);
        sender.write_all(b"four").await.unwrap();
        assert_eq!(receiver.read(&mut space).await.unwrap(), 4);
        drop(sender);
        assert_eq!(receiver.read(&mut space).await.unwrap(), 0);
        assert_eq!(receiver.receive(&mut space).unwrap(), 0);
    }

    #[tokio::test]
    async fn a_client_that_is_gone_is_an_error_to_send_to() {
        let (mut sender, receiver) = pair();
        drop(receiver);
        let error = sender.write_all(b"hello").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}

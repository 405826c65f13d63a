//! How much is handled at a time, and the bodies of what is: nobody takes the appliance's memory by asking.
//!
//! Invariants: whoever is nobody yet, whoever comes over the network, and the maintenance socket have room of their own
//! each, so that none shuts out another. A body takes room as it arrives, not as it is announced, and gives it back when
//! its request has been answered. What is open to everybody, and what takes no body, reads little.

use std::sync::Arc;
use std::time::Duration;

use ashlar_openapi::operation::Content as _;
use ashlar_openapi::{Operation, Problem, ProblemType, Roles};
use axum::body::{Body, Bytes};
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::incoming::takes_no_body;
use crate::listen::Origin;

/// Largest body, in bytes: ten thousand placements, written generously.
const LARGEST_BODY: usize = 4 << 20;
/// Largest body where everybody may ask, or none is needed.
const SMALL_BODY: usize = 16 << 10;
/// For a whole body to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// Room for requests, and for their bodies' bytes.
#[derive(Debug)]
struct Room {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Room {
    fn new(requests: usize, bytes: usize) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(requests)),
            bytes: Arc::new(Semaphore::new(bytes)),
        }
    }
}

/// The room that there is.
#[derive(Debug)]
pub struct Rooms {
    everybody: Room,
    network: Room,
    maintenance: Room,
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            everybody: Room::new(256, 256 * SMALL_BODY),
            network: Room::new(1024, 64 << 20),
            maintenance: Room::new(64, 16 << 20),
        }
    }
}

/// One request's place; it is free again when this goes away.
#[derive(Debug)]
pub struct Place {
    _request: OwnedSemaphorePermit,
    bytes: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
}

impl Rooms {
    /// A place for a request of the operation.
    ///
    /// # Errors
    /// [`ProblemType::Busy`].
    pub fn enter<O: Operation>(&self, origin: Option<Origin>) -> Result<Place, Problem> {
        let room = match origin {
            Some(Origin::Maintenance { .. }) => &self.maintenance,
            _ if O::ROLES == Roles::Public => &self.everybody,
            _ => &self.network,
        };
        let request = Arc::clone(&room.requests).try_acquire_owned();
        Ok(Place {
            _request: request.map_err(|_| busy())?,
            bytes: Arc::clone(&room.bytes),
            taken: None,
        })
    }
}

impl Place {
    /// The request's body. It counts until the place is given back.
    ///
    /// # Errors
    /// Where it is too large, too slow, cut off, or there is no room for it.
    pub async fn read<O: Operation>(&mut self, body: Body) -> Result<Bytes, Problem> {
        let no_body = O::Body::schema_name().is_none();
        let largest = if no_body || O::ROLES == Roles::Public {
            SMALL_BODY
        } else {
            LARGEST_BODY
        };
        let read = tokio::time::timeout(PATIENCE, self.read_at_most(body, largest)).await;
        match read.unwrap_or_else(|_| Err(late())) {
            Err(problem) if no_body && problem.kind == ProblemType::BodyTooLarge => Err(takes_no_body()),
            read => read,
        }
    }

    async fn read_at_most(&mut self, body: Body, largest: usize) -> Result<Bytes, Problem> {
        let mut pieces = body.into_data_stream();
        let mut whole = Vec::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| cut_off())?;
            if piece.len() > largest - whole.len() {
                return Err(Problem::new(
                    ProblemType::BodyTooLarge,
                    "the body is larger than any that this operation needs",
                    format!("send at most {largest} bytes"),
                ));
            }
            self.take(piece.len())?;
            whole.extend_from_slice(&piece);
        }
        Ok(whole.into())
    }

    fn take(&mut self, bytes: usize) -> Result<(), Problem> {
        let wanted = u32::try_from(bytes).map_err(|_| busy())?;
        let more = Arc::clone(&self.bytes).try_acquire_many_owned(wanted);
        let more = more.map_err(|_| busy())?;
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        Ok(())
    }
}

fn busy() -> Problem {
    let mut problem = Problem::new(
        ProblemType::Busy,
        "the appliance handles as many requests as it can",
        "try again",
    );
    problem.correction.retry_after_s = Some(1);
    problem
}

fn late() -> Problem {
    Problem::new(
        ProblemType::MalformedJson,
        format!("the body did not arrive within {} s", PATIENCE.as_secs()),
        "send it without pauses",
    )
}

fn cut_off() -> Problem {
    Problem::new(
        ProblemType::MalformedJson,
        "the body was cut off",
        "send all of it",
    )
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use ashlar_openapi::operations::{CreateVolume, GetVolume, SignInWithPassword};

    use super::*;

    const SOCKET: Option<Origin> = Some(Origin::Maintenance { uid: 0 });

    async fn read<O: Operation>(rooms: &Rooms, bytes: usize) -> Result<usize, ProblemType> {
        let mut place = rooms.enter::<O>(None).map_err(|problem| problem.kind)?;
        let read = place.read::<O>(Body::from(vec![b' '; bytes])).await;
        read.map(|read| read.len()).map_err(|problem| problem.kind)
    }

    #[tokio::test]
    async fn who_is_nobody_yet_or_needs_no_body_sends_little() {
        let rooms = Rooms::default();
        assert_eq!(read::<CreateVolume>(&rooms, LARGEST_BODY).await, Ok(LARGEST_BODY));
        let too_large = Err(ProblemType::BodyTooLarge);
        assert_eq!(read::<CreateVolume>(&rooms, LARGEST_BODY + 1).await, too_large);
        assert_eq!(
            read::<SignInWithPassword>(&rooms, SMALL_BODY).await,
            Ok(SMALL_BODY)
        );
        assert_eq!(
            read::<SignInWithPassword>(&rooms, SMALL_BODY + 1).await,
            too_large
        );
        let needless = Err(ProblemType::UnknownField);
        assert_eq!(read::<GetVolume>(&rooms, SMALL_BODY + 1).await, needless);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let rooms = Rooms::default();
        let mut place = rooms.enter::<CreateVolume>(None).unwrap();
        let silent = futures_util::stream::pending::<Result<Bytes, Infallible>>();
        let problem = place.read::<CreateVolume>(Body::from_stream(silent)).await;
        assert_eq!(problem.unwrap_err().kind, ProblemType::MalformedJson);
    }

    #[tokio::test]
    async fn what_one_kind_of_client_fills_is_not_the_others() {
        let rooms = Rooms::default();
        let mut guests = Vec::new();
        while let Ok(place) = rooms.enter::<SignInWithPassword>(None) {
            guests.push(place);
        }
        assert!(rooms.enter::<SignInWithPassword>(SOCKET).is_ok());
        assert!(rooms.enter::<CreateVolume>(None).is_ok());
        guests.pop();
        assert!(rooms.enter::<SignInWithPassword>(None).is_ok());
    }

    #[tokio::test]
    async fn bodies_have_a_bound_together_and_give_their_room_back() {
        let rooms = Rooms::default();
        let mut places = Vec::new();
        let refused = loop {
            let mut place = rooms.enter::<CreateVolume>(SOCKET).unwrap();
            let body = Body::from(vec![b' '; LARGEST_BODY]);
            match place.read::<CreateVolume>(body).await {
                Ok(_) => places.push(place),
                Err(refused) => break refused,
            }
        };
        assert_eq!((refused.kind, places.len()), (ProblemType::Busy, 4));
        places.clear();
        let mut place = rooms.enter::<CreateVolume>(SOCKET).unwrap();
        let body = Body::from(vec![b' '; LARGEST_BODY]);
        assert!(place.read::<CreateVolume>(body).await.is_ok());
    }
}

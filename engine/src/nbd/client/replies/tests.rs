use super::*;
use proptest::prelude::*;

fn simple(cookie: u64, errno: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = wire::SIMPLE_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend(errno.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(data);
    bytes
}

fn chunk(dialect: Dialect, cookie: u64, at: u64, kind: u16, done: bool, payload: &[u8]) -> Vec<u8> {
    let extended = dialect == Dialect::Extended;
    let magic = if extended {
        wire::EXTENDED_REPLY_MAGIC
    } else {
        wire::STRUCTURED_REPLY_MAGIC
    };
    let mut bytes = magic.to_be_bytes().to_vec();
    bytes.extend(u16::from(done).to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    if extended {
        bytes.extend(at.to_be_bytes());
        bytes.extend((payload.len() as u64).to_be_bytes());
    } else {
        bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    }
    bytes.extend(payload);
    bytes
}

fn data(at: u64, bytes: &[u8]) -> Vec<u8> {
    [&at.to_be_bytes(), bytes].concat()
}

fn hole(at: u64, len: u32) -> Vec<u8> {
    [&at.to_be_bytes()[..], &len.to_be_bytes()].concat()
}

fn error(errno: u32, message: &str) -> Vec<u8> {
    let len = u16::try_from(message.len()).unwrap();
    [&errno.to_be_bytes()[..], &len.to_be_bytes(), message.as_bytes()].concat()
}

fn status(context: u32, runs: &[(u32, u32)]) -> Vec<u8> {
    let runs = runs
        .iter()
        .flat_map(|(len, flags)| [len.to_be_bytes(), flags.to_be_bytes()].concat());
    context.to_be_bytes().into_iter().chain(runs).collect()
}

fn status_ext(context: u32, count: u32, runs: &[(u64, u64)]) -> Vec<u8> {
    let runs = runs
        .iter()
        .flat_map(|(len, flags)| [len.to_be_bytes(), flags.to_be_bytes()].concat());
    context
        .to_be_bytes()
        .into_iter()
        .chain(count.to_be_bytes())
        .chain(runs)
        .collect()
}

/// What a caller sees of an outcome, comparable.
#[derive(Debug, PartialEq)]
enum Seen {
    Done,
    Read(Vec<u8>),
    Status(Vec<Extent>),
    Failed(RequestError),
}

const CONTEXT: u32 = 7;
const READ_AT: u64 = 4096;
const READ_LEN: usize = 64;

/// Requests in flight: cookie 1 reads 64 bytes at 4096, 2 has nothing to bring, 3 asks for status of 100 bytes at 0.
fn three_in_flight(dialect: Dialect) -> Replies<u64> {
    let mut replies = Replies::new(dialect, Some(CONTEXT));
    replies.expect(
        1,
        Expected::Read {
            at: READ_AT,
            buf: IoBuf::new(READ_LEN),
        },
        1,
    );
    replies.expect(2, Expected::Nothing { at: 512 }, 2);
    replies.expect(
        3,
        Expected::Status {
            range: ByteRange::between(0, 100),
        },
        3,
    );
    replies
}

fn run(dialect: Dialect, pieces: &[&[u8]]) -> (Vec<(u64, Seen)>, Option<ReplyError>) {
    let mut replies = three_in_flight(dialect);
    let mut finished = Vec::new();
    let result = pieces
        .iter()
        .try_for_each(|piece| replies.receive(piece, &mut finished));
    let seen = finished.into_iter().map(|Finished { token, outcome }| {
        let seen = match outcome {
            Ok(Reply::Done) => Seen::Done,
            Ok(Reply::Read(buf)) => Seen::Read(buf.as_slice().to_vec()),
            Ok(Reply::Status(extents)) => Seen::Status(extents),
            Err(error) => Seen::Failed(error),
        };
        (token, seen)
    });
    (seen.collect(), result.err())
}

fn refused(errno: u32, message: &str) -> Seen {
    Seen::Failed(RequestError::Refused {
        errno,
        message: message.into(),
    })
}

/// The error that a structured stream of these chunks, each `(cookie, kind, done, payload)`, ends with.
fn broken_by(chunks: &[(u64, u16, bool, Vec<u8>)]) -> Option<ReplyError> {
    let stream: Vec<u8> = chunks
        .iter()
        .flat_map(|(cookie, kind, done, payload)| {
            chunk(Dialect::Structured, *cookie, 0, *kind, *done, payload)
        })
        .collect();
    run(Dialect::Structured, &[&stream]).1
}

#[test]
fn simple_replies_bring_data_and_errors() {
    let content = [5; READ_LEN];
    let stream = [simple(2, 5, &[]), simple(1, 0, &content)].concat();
    let (seen, error) = run(Dialect::Simple, &[&stream]);
    assert_eq!(error, None);
    assert_eq!(seen, [(2, refused(5, "")), (1, Seen::Read(content.to_vec()))]);
}

#[test]
fn a_read_is_put_together_from_chunks_in_any_order() {
    for dialect in [Dialect::Structured, Dialect::Extended] {
        let stream = [
            chunk(
                dialect,
                1,
                READ_AT,
                wire::REPLY_OFFSET_DATA,
                false,
                &data(READ_AT + 40, &[2; 24]),
            ),
            chunk(
                dialect,
                1,
                READ_AT,
                wire::REPLY_OFFSET_HOLE,
                false,
                &hole(READ_AT + 8, 32),
            ),
            chunk(dialect, 2, 512, wire::REPLY_NONE, true, &[]),
            chunk(
                dialect,
                1,
                READ_AT,
                wire::REPLY_OFFSET_DATA,
                true,
                &data(READ_AT, &[1; 8]),
            ),
        ];
        let (seen, error) = run(dialect, &[&stream.concat()]);
        let content = [vec![1; 8], vec![0; 32], vec![2; 24]].concat();
        assert_eq!(error, None);
        assert_eq!(seen, [(2, Seen::Done), (1, Seen::Read(content))]);
    }
}

#[test]
fn the_first_error_of_a_reply_is_told_and_the_read_need_not_be_complete() {
    let stream = [
        chunk(
            Dialect::Structured,
            1,
            0,
            wire::REPLY_OFFSET_DATA,
            false,
            &data(READ_AT, &[1; 8]),
        ),
        chunk(
            Dialect::Structured,
            1,
            0,
            wire::REPLY_ERROR_OFFSET,
            false,
            &data_after(error(5, "bad"), READ_AT),
        ),
        chunk(
            Dialect::Structured,
            1,
            0,
            (1 << 15) | 77,
            false,
            &error(22, "another"),
        ),
        chunk(Dialect::Structured, 1, 0, wire::REPLY_NONE, true, &[]),
    ];
    let (seen, error) = run(Dialect::Structured, &[&stream.concat()]);
    assert_eq!(error, None);
    assert_eq!(seen, [(1, refused(5, "bad"))]);
}

fn data_after(mut head: Vec<u8>, at: u64) -> Vec<u8> {
    head.extend(at.to_be_bytes());
    head
}

#[test]
fn block_status_is_cut_to_the_range_that_was_asked() {
    let expected = [
        Extent {
            len: 60,
            hole: false,
            zero: false,
        },
        Extent {
            len: 40,
            hole: true,
            zero: true,
        },
    ];
    let payload = status(CONTEXT, &[(60, 0), (4000, 3)]);
    let stream = chunk(
        Dialect::Structured,
        3,
        0,
        wire::REPLY_BLOCK_STATUS,
        true,
        &payload,
    );
    assert_eq!(
        run(Dialect::Structured, &[&stream]),
        (vec![(3, Seen::Status(expected.to_vec()))], None)
    );
    let payload = status_ext(CONTEXT, 2, &[(60, 0), (1 << 40, 3)]);
    let stream = chunk(
        Dialect::Extended,
        3,
        0,
        wire::REPLY_BLOCK_STATUS_EXT,
        true,
        &payload,
    );
    assert_eq!(
        run(Dialect::Extended, &[&stream]),
        (vec![(3, Seen::Status(expected.to_vec()))], None)
    );
}

#[test]
fn data_outside_the_request_or_twice_or_missing_ends_the_connection() {
    let sent = |at: u64, len: usize, done: bool| (1, wire::REPLY_OFFSET_DATA, done, data(at, &vec![1; len]));
    assert_eq!(
        broken_by(&[sent(READ_AT - 1, 8, false)]),
        Some(ReplyError::Placement)
    );
    assert_eq!(
        broken_by(&[sent(READ_AT + 60, 8, false)]),
        Some(ReplyError::Placement)
    );
    assert_eq!(
        broken_by(&[sent(u64::MAX, 8, false)]),
        Some(ReplyError::Placement)
    );
    assert_eq!(
        broken_by(&[sent(READ_AT, 8, false), sent(READ_AT + 7, 8, false)]),
        Some(ReplyError::Placement)
    );
    assert_eq!(broken_by(&[sent(READ_AT, 63, true)]), Some(ReplyError::Missing));
    let empty_hole = (1, wire::REPLY_OFFSET_HOLE, false, hole(READ_AT, 0));
    assert_eq!(broken_by(&[empty_hole]), Some(ReplyError::Placement));
    assert_eq!(
        broken_by(&[(1, wire::REPLY_NONE, true, vec![])]),
        Some(ReplyError::Missing)
    );
    assert_eq!(
        broken_by(&[(3, wire::REPLY_NONE, true, vec![])]),
        Some(ReplyError::Missing)
    );
}

#[test]
fn a_reply_that_no_request_waits_for_ends_the_connection() {
    assert_eq!(
        broken_by(&[(9, wire::REPLY_NONE, true, vec![])]),
        Some(ReplyError::UnknownCookie(9))
    );
    let done_twice = [
        (2, wire::REPLY_NONE, true, vec![]),
        (2, wire::REPLY_NONE, true, vec![]),
    ];
    assert_eq!(broken_by(&done_twice), Some(ReplyError::UnknownCookie(2)));
}

#[test]
fn lengths_are_refused_before_their_bytes_come() {
    for (cookie, kind, len) in [
        (1, wire::REPLY_OFFSET_DATA, 8),
        (1, wire::REPLY_OFFSET_DATA, 8 + READ_LEN + 1),
        (1, wire::REPLY_OFFSET_HOLE, 13),
        (1, wire::REPLY_ERROR, 5),
        (1, wire::REPLY_ERROR, 1 << 20),
        (2, wire::REPLY_NONE, 1),
        (3, wire::REPLY_BLOCK_STATUS, 4),
        (3, wire::REPLY_BLOCK_STATUS, 13),
        (3, wire::REPLY_BLOCK_STATUS, 0xffff_fffc),
    ] {
        let mut head = chunk(Dialect::Structured, cookie, 0, kind, true, &[]);
        head[16..20].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
        let (_, error) = run(Dialect::Structured, &[&head]);
        assert_eq!(
            error,
            Some(ReplyError::ChunkLength {
                kind,
                len: len as u64
            })
        );
    }
    let mut head = chunk(Dialect::Extended, 1, READ_AT, wire::REPLY_OFFSET_DATA, true, &[]);
    head[24..].fill(0xff);
    let expected = ReplyError::ChunkLength {
        kind: wire::REPLY_OFFSET_DATA,
        len: u64::MAX,
    };
    assert_eq!(run(Dialect::Extended, &[&head]).1, Some(expected));
}

#[test]
fn chunks_that_do_not_answer_the_request_end_the_connection() {
    let status_to_read = (1, wire::REPLY_BLOCK_STATUS, true, status(CONTEXT, &[(1, 0)]));
    assert_eq!(
        broken_by(&[status_to_read]),
        Some(ReplyError::ChunkKind(wire::REPLY_BLOCK_STATUS))
    );
    let data_to_flush = (2, wire::REPLY_OFFSET_DATA, true, data(512, &[1]));
    assert_eq!(
        broken_by(&[data_to_flush]),
        Some(ReplyError::ChunkKind(wire::REPLY_OFFSET_DATA))
    );
    assert_eq!(
        broken_by(&[(1, 99, true, vec![])]),
        Some(ReplyError::ChunkKind(99))
    );
    let foreign = (3, wire::REPLY_BLOCK_STATUS, true, status(CONTEXT + 1, &[(1, 0)]));
    assert!(matches!(broken_by(&[foreign]), Some(ReplyError::Status(_))));
    let empty_run = (3, wire::REPLY_BLOCK_STATUS, true, status(CONTEXT, &[(0, 0)]));
    assert!(matches!(broken_by(&[empty_run]), Some(ReplyError::Status(_))));
    let miscounted = chunk(
        Dialect::Extended,
        3,
        0,
        6,
        true,
        &status_ext(CONTEXT, 2, &[(1, 0)]),
    );
    assert!(matches!(
        run(Dialect::Extended, &[&miscounted]).1,
        Some(ReplyError::Status(_))
    ));
    assert_eq!(
        broken_by(&[(1, wire::REPLY_ERROR, true, error(0, "fine"))]),
        Some(ReplyError::ErrorPayload)
    );
    let cut_message = [&5u32.to_be_bytes()[..], &9u16.to_be_bytes(), b"short"].concat();
    assert_eq!(
        broken_by(&[(1, wire::REPLY_ERROR, true, cut_message)]),
        Some(ReplyError::ErrorPayload)
    );
}

#[test]
fn a_reply_in_another_dialect_ends_the_connection() {
    let simple = simple(2, 0, &[]);
    let magic = ReplyError::Magic(wire::SIMPLE_REPLY_MAGIC);
    assert_eq!(
        run(Dialect::Extended, &[&[&simple[..], &[0; 16]].concat()]).1,
        Some(magic)
    );
    let structured = chunk(Dialect::Structured, 2, 0, wire::REPLY_NONE, true, &[]);
    assert_eq!(
        run(Dialect::Simple, &[&structured]).1,
        Some(ReplyError::Magic(wire::STRUCTURED_REPLY_MAGIC))
    );
    let read = self::simple(1, 0, &[0; READ_LEN]);
    assert_eq!(run(Dialect::Structured, &[&read]).1, Some(ReplyError::SimpleRead));
    let elsewhere = chunk(Dialect::Extended, 2, 513, wire::REPLY_NONE, true, &[]);
    let offset = ReplyError::Offset {
        named: 513,
        asked: 512,
    };
    assert_eq!(run(Dialect::Extended, &[&elsewhere]).1, Some(offset));
}

#[test]
fn what_is_abandoned_comes_back_oldest_first_and_once() {
    let mut replies = three_in_flight(Dialect::Simple);
    assert_eq!(replies.abandon().collect::<Vec<_>>(), [1, 2, 3]);
    assert!(replies.is_empty());
}

fn any_dialect() -> impl Strategy<Value = Dialect> {
    prop_oneof![
        Just(Dialect::Simple),
        Just(Dialect::Structured),
        Just(Dialect::Extended)
    ]
}

/// Chunks of which most are well-formed and many fit the requests.
fn plausible_stream(dialect: Dialect) -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        (0u64..70, prop::collection::vec(any::<u8>(), 1..66))
            .prop_map(|(at, bytes)| (wire::REPLY_OFFSET_DATA, data(READ_AT + at, &bytes))),
        Just((wire::REPLY_OFFSET_DATA, data(READ_AT, &[3; READ_LEN]))),
        (0u64..70, 0u32..70).prop_map(|(at, len)| (wire::REPLY_OFFSET_HOLE, hole(READ_AT + at, len))),
        Just((wire::REPLY_NONE, vec![])),
        (0u32..3).prop_map(|errno| (wire::REPLY_ERROR, error(errno, "no"))),
        (1u32..200).prop_map(|len| (wire::REPLY_BLOCK_STATUS, status(CONTEXT, &[(len, 1)]))),
        (1u64..200).prop_map(|len| (wire::REPLY_BLOCK_STATUS_EXT, status_ext(CONTEXT, 1, &[(len, 1)]))),
    ];
    let piece = (1u64..4, any::<bool>(), payload).prop_map(move |(cookie, done, (kind, payload))| {
        let at = [READ_AT, 512, 0][usize::try_from(cookie).unwrap() - 1];
        match dialect {
            Dialect::Simple if done => simple(cookie, 0, if cookie == 1 { &[9; READ_LEN] } else { &[] }),
            Dialect::Simple => simple(cookie, 5, &[]),
            _ => chunk(dialect, cookie, at, kind, done, &payload),
        }
    });
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn garbage_never_panics(dialect in any_dialect(), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        run(dialect, &[&bytes]);
    }

    #[test]
    fn the_same_stream_cut_anywhere_gives_the_same_outcomes(
        (dialect, stream) in any_dialect().prop_flat_map(|dialect| (Just(dialect), plausible_stream(dialect))),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut stream = stream;
        if let (Some((place, value)), false) = (damage, stream.is_empty()) {
            let place = place.index(stream.len());
            stream[place] = value;
        }
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        ends.extend([0, stream.len()]);
        ends.sort_unstable();
        let pieces: Vec<&[u8]> = ends.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect();
        prop_assert_eq!(run(dialect, &pieces), run(dialect, &[&stream]));
    }
}

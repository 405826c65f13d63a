use super::*;
use crate::io::IoBuf;
use proptest::prelude::*;

fn data(bytes: &[u8]) -> Segment {
    Segment::Data(IoBuf::from_slice(bytes).into_slice())
}

fn read(segments: Vec<Segment>, dont_fragment: bool) -> Reply {
    let answer = Answer::Data {
        segments: segments.into(),
        dont_fragment,
    };
    Reply {
        cookie: 0x0102_0304_0506_0708,
        offset: 0x1000,
        answer,
    }
}

/// All bytes of the queue, taken at most `step` at a time.
fn drain(replies: &mut Replies, step: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !replies.is_empty() {
        let slices = replies.gather();
        let next: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .take(step)
            .collect();
        drop(slices);
        replies.sent(next.len());
        bytes.extend(next);
    }
    bytes
}

fn encode(mode: Mode, reply: Reply) -> Vec<u8> {
    let mut replies = Replies::new(mode);
    replies.push(reply);
    let len = replies.len();
    let bytes = drain(&mut replies, usize::MAX);
    assert_eq!(bytes.len(), len);
    bytes
}

const COOKIE: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

#[test]
fn a_simple_reply_carries_the_data_with_its_zeros() {
    let bytes = encode(
        Mode::Simple,
        read(vec![data(b"ab"), Segment::Zero(2), data(b"c")], false),
    );
    assert_eq!(
        bytes,
        [&[0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0][..], &COOKIE, b"ab\0\0c"].concat()
    );
}

#[test]
fn a_structured_read_has_a_chunk_for_each_segment_and_marks_the_last() {
    let bytes = encode(Mode::Structured, read(vec![data(b"ab"), Segment::Zero(3)], false));
    let chunk = [
        &[0x66, 0x8e, 0x33, 0xef, 0, 0, 0, 1][..],
        &COOKIE,
        &[0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0x10, 0],
        b"ab",
    ];
    let hole = [
        &[0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 2][..],
        &COOKIE,
        &[0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0x10, 2, 0, 0, 0, 3],
    ];
    assert_eq!(bytes, [chunk.concat(), hole.concat()].concat());
}

#[test]
fn a_read_that_must_not_be_fragmented_is_one_chunk() {
    let bytes = encode(
        Mode::Structured,
        read(vec![data(b"ab"), Segment::Zero(2), data(b"c")], true),
    );
    let header = [0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1];
    let chunk = [
        &header[..],
        &COOKIE,
        &[0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0x10, 0],
        b"ab\0\0c",
    ];
    assert_eq!(bytes, chunk.concat());
    let hole = encode(Mode::Structured, read(vec![Segment::Zero(1 << 20)], true));
    assert_eq!(hole.len(), wire::STRUCTURED_REPLY_LEN + 12);
}

#[test]
fn extended_headers_tell_the_requests_offset_and_a_64_bit_length() {
    let done = Reply {
        cookie: 0x0102_0304_0506_0708,
        offset: 9,
        answer: Answer::Done,
    };
    let header = [0x6e, 0x8a, 0x27, 0x8c, 0, 1, 0, 0];
    let expected = [&header[..], &COOKIE, &[0, 0, 0, 0, 0, 0, 0, 9], &[0; 8]];
    assert_eq!(encode(Mode::Extended, done), expected.concat());
}

#[test]
fn block_status_has_32_or_64_bit_extents() {
    let status = || {
        let extents = vec![Extent { len: 5, flags: 3 }, Extent { len: 6, flags: 0 }];
        Reply {
            cookie: 0x0102_0304_0506_0708,
            offset: 0,
            answer: Answer::Status([(7, extents)].into_iter().collect()),
        }
    };
    let compact = encode(Mode::Structured, status());
    assert_eq!(compact[6..8], [0, 5]);
    assert_eq!(
        compact[16..],
        [
            0, 0, 0, 20, 0, 0, 0, 7, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0, 6, 0, 0, 0, 0
        ]
    );
    let extended = encode(Mode::Extended, status());
    assert_eq!(extended[6..8], [0, 6]);
    let extent = |len, flags| [[0, 0, 0, 0, 0, 0, 0, len], [0, 0, 0, 0, 0, 0, 0, flags]].concat();
    let payload = [vec![0, 0, 0, 7, 0, 0, 0, 2], extent(5, 3), extent(6, 0)].concat();
    assert_eq!(extended[24..32], (payload.len() as u64).to_be_bytes());
    assert_eq!(extended[32..], payload);
}

#[test]
fn an_error_is_a_number_and_where_possible_a_text_of_bounded_length() {
    let failed = |why: &str| Reply {
        cookie: 0x0102_0304_0506_0708,
        offset: 0,
        answer: Answer::Failed {
            errno: wire::EIO,
            why: why.into(),
        },
    };
    assert_eq!(encode(Mode::Simple, failed("no"))[4..8], [0, 0, 0, 5]);
    let chunk = encode(Mode::Structured, failed("no"));
    assert_eq!(chunk[4..8], [0, 1, 0x80, 1]);
    assert_eq!(chunk[16..], [0, 0, 0, 8, 0, 0, 0, 5, 0, 2, b'n', b'o']);
    let long = encode(Mode::Structured, failed(&"é".repeat(1000)));
    assert!(std::str::from_utf8(&long[26..]).is_ok_and(|text| text.len() <= MAX_TEXT));
}

fn any_reply() -> impl Strategy<Value = (u8, usize, u64)> {
    (0u8..5, 0usize..5000, any::<u64>())
}

fn made((kind, len, cookie): (u8, usize, u64)) -> Reply {
    let answer = match kind {
        0 => Answer::Done,
        1 => Answer::Failed {
            errno: wire::EIO,
            why: "x".repeat(len % 300),
        },
        2 => {
            let extents = (0..len % 9)
                .map(|n| Extent {
                    len: n as u64 + 1,
                    flags: 0,
                })
                .collect();
            Answer::Status([(1, extents)].into_iter().collect())
        }
        _ => {
            let fill = u8::try_from(len % 251).unwrap();
            let zeros = Segment::Zero(len as u64 * 14);
            let segments = vec![data(&vec![fill; len + 1]), zeros, data(&[fill; 3])];
            Answer::Data {
                segments: segments.into(),
                dont_fragment: kind == 4,
            }
        }
    };
    Reply {
        cookie,
        offset: cookie / 2,
        answer,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn partial_sends_change_nothing(
        replies in proptest::collection::vec(any_reply(), 1..40),
        step in 1usize..200_000,
        mode in prop_oneof![Just(Mode::Simple), Just(Mode::Structured), Just(Mode::Extended)],
    ) {
        let possible = |reply: &&(u8, usize, u64)| mode != Mode::Simple || reply.0 != 2;
        let chosen: Vec<_> = replies.iter().filter(possible).copied().collect();
        let alone: Vec<u8> = chosen.iter().flat_map(|&reply| encode(mode, made(reply))).collect();
        let mut queue = Replies::new(mode);
        let mut together = Vec::new();
        for (n, &reply) in chosen.iter().enumerate() {
            queue.push(made(reply));
            // Some are sent in part while others are added.
            if n % 3 == 0 {
                let slices = queue.gather();
                let next: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(step).collect();
                drop(slices);
                queue.sent(next.len());
                together.extend(next);
            }
        }
        together.extend(drain(&mut queue, step.max(97)));
        prop_assert_eq!(together, alone);
    }
}

use super::*;
use proptest::prelude::*;

const MODES: [Mode; 3] = [Mode::Simple, Mode::Structured, Mode::Extended];

fn header(mode: Mode, flags: u16, kind: u16, offset: u64, len: u64) -> Vec<u8> {
    let extended = mode == Mode::Extended;
    let magic = if extended {
        wire::EXTENDED_REQUEST_MAGIC
    } else {
        wire::REQUEST_MAGIC
    };
    let mut bytes = magic.to_be_bytes().to_vec();
    bytes.extend_from_slice(&flags.to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&0xc00c_1e00_u64.to_be_bytes());
    bytes.extend_from_slice(&offset.to_be_bytes());
    if extended {
        bytes.extend_from_slice(&len.to_be_bytes());
    } else {
        bytes.extend_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
    }
    bytes
}

fn write(mode: Mode, offset: u64, payload: &[u8]) -> Vec<u8> {
    let flags = if mode == Mode::Extended {
        wire::CMD_FLAG_PAYLOAD_LEN
    } else {
        0
    };
    [
        &header(mode, flags, wire::CMD_WRITE, offset, payload.len() as u64),
        payload,
    ]
    .concat()
}

/// Feeds the stream, at most `cuts` bytes at a time in turn, and returns what came out, in words.
fn parse(mode: Mode, stream: &[u8], cuts: &[usize]) -> (Vec<String>, Option<TransmissionError>) {
    let mut reader = RequestReader::new(mode, &[]);
    let mut cuts = cuts.iter().copied().cycle();
    let (mut seen, mut rest) = (Vec::new(), stream);
    loop {
        match reader.next() {
            Err(error) => return (seen, Some(error)),
            Ok(Some(Request {
                command: Command::Disconnect,
                ..
            })) => return (seen, None),
            Ok(Some(request)) => seen.push(words(&request)),
            Ok(None) if rest.is_empty() => return (seen, None),
            Ok(None) => {
                let space = reader.space();
                let count = cuts.next().unwrap_or(usize::MAX).min(space.len()).min(rest.len());
                assert!(count > 0, "there is always space for more");
                space[..count].copy_from_slice(&rest[..count]);
                reader.received(count);
                rest = &rest[count..];
            }
        }
    }
}

fn words(request: &Request) -> String {
    if let Command::Write { at, data, fua } = &request.command {
        let sum = crate::types::crc::crc32c(data.as_slice());
        return format!(
            "{} write {at}+{} fua {fua} sum {sum:x}",
            request.cookie,
            data.len()
        );
    }
    format!("{request:?}")
}

fn only(mode: Mode, stream: &[u8]) -> Command {
    let mut reader = RequestReader::new(mode, stream);
    let request = reader.next().unwrap().expect("a whole request");
    assert!(reader.next().unwrap().is_none());
    request.command
}

fn refused(mode: Mode, stream: &[u8]) -> u32 {
    match only(mode, stream) {
        Command::Refused { errno, .. } => errno,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn every_command_is_understood_in_every_mode() {
    for mode in MODES {
        assert!(matches!(only(mode, &header(mode, 0, wire::CMD_READ, 512, 4096)),
            Command::Read { range, dont_fragment: false } if range == ByteRange::new(512, 4096).unwrap()));
        assert!(matches!(only(mode, &write(mode, 7, b"data")),
            Command::Write { at: 7, data, fua: false } if data.as_slice() == b"data"));
        assert!(matches!(
            only(mode, &header(mode, 0, wire::CMD_FLUSH, 0, 0)),
            Command::Flush
        ));
        assert!(matches!(
            only(mode, &header(mode, 0, wire::CMD_DISC, 0, 0)),
            Command::Disconnect
        ));
        let unmapping = ZeroOptions {
            unmap: true,
            fast_only: false,
            fua: true,
        };
        assert!(
            matches!(only(mode, &header(mode, wire::CMD_FLAG_FUA, wire::CMD_TRIM, 0, 8)),
            Command::Zero { options, .. } if options == unmapping)
        );
        let flags = wire::CMD_FLAG_NO_HOLE | wire::CMD_FLAG_FAST_ZERO;
        let keeping = ZeroOptions {
            unmap: false,
            fast_only: true,
            fua: false,
        };
        assert!(
            matches!(only(mode, &header(mode, flags, wire::CMD_WRITE_ZEROES, 0, 8)),
            Command::Zero { options, .. } if options == keeping)
        );
        assert!(matches!(
            only(
                mode,
                &header(mode, wire::CMD_FLAG_REQ_ONE, wire::CMD_BLOCK_STATUS, 0, 8)
            ),
            Command::BlockStatus { one: true, .. }
        ));
    }
}

#[test]
fn an_extended_request_may_zero_more_than_4_gib() {
    let request = header(Mode::Extended, 0, wire::CMD_WRITE_ZEROES, 4096, 1 << 40);
    assert!(matches!(only(Mode::Extended, &request), Command::Zero { range, .. } if range.len() == 1 << 40));
}

#[test]
fn an_extended_write_has_its_payload_with_and_without_the_flag() {
    for flags in [0, wire::CMD_FLAG_PAYLOAD_LEN] {
        let stream = [&header(Mode::Extended, flags, wire::CMD_WRITE, 0, 4)[..], b"data"].concat();
        assert!(
            matches!(only(Mode::Extended, &stream), Command::Write { data, .. } if data.as_slice() == b"data")
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused_by_its_number() {
    for mode in MODES {
        let too_long = u64::from(wire::MAX_PAYLOAD) + 1;
        let oversized = if mode == Mode::Extended {
            wire::EOVERFLOW
        } else {
            wire::EINVAL
        };
        let cases = [
            (header(mode, 0, 99, 0, 8), wire::EINVAL),
            (header(mode, 1 << 9, wire::CMD_READ, 0, 8), wire::EINVAL),
            (
                header(mode, wire::CMD_FLAG_NO_HOLE, wire::CMD_TRIM, 0, 8),
                wire::EINVAL,
            ),
            (header(mode, 0, wire::CMD_READ, 0, 0), wire::EINVAL),
            (header(mode, 0, wire::CMD_READ, u64::MAX, 8), wire::EINVAL),
            (header(mode, 0, wire::CMD_WRITE_ZEROES, u64::MAX, 8), wire::ENOSPC),
            (header(mode, 0, wire::CMD_READ, 0, too_long), oversized),
            (write(mode, u64::MAX, b"beyond"), wire::ENOSPC),
            (write(mode, 0, b""), wire::EINVAL),
        ];
        for (stream, errno) in cases {
            assert_eq!(refused(mode, &stream), errno, "{mode:?} {stream:x?}");
        }
    }
    assert_eq!(
        refused(
            Mode::Simple,
            &header(Mode::Simple, wire::CMD_FLAG_DF, wire::CMD_READ, 0, 8)
        ),
        wire::EINVAL
    );
}

#[test]
fn an_oversized_write_is_skipped_and_the_next_request_is_understood() {
    for mode in MODES {
        let mut stream = write(mode, 0, &vec![0x25; wire::MAX_PAYLOAD as usize + 1]);
        stream.extend(header(mode, 0, wire::CMD_FLUSH, 0, 0));
        let (seen, error) = parse(mode, &stream, &[100_000]);
        assert_eq!(error, None);
        assert!(
            seen[0].contains("Refused") && seen[1].contains("Flush"),
            "{seen:?}"
        );
    }
}

#[test]
fn a_payload_that_no_command_takes_is_skipped() {
    let mode = Mode::Extended;
    let mut stream = header(mode, wire::CMD_FLAG_PAYLOAD_LEN, wire::CMD_READ, 0, 100);
    stream.extend([7; 100]);
    stream.extend(header(mode, 0, wire::CMD_FLUSH, 0, 0));
    let (seen, error) = parse(mode, &stream, &[usize::MAX]);
    assert_eq!(error, None);
    assert!(
        seen[0].contains("Refused") && seen[1].contains("Flush"),
        "{seen:?}"
    );
}

#[test]
fn a_payload_too_long_to_skip_ends_the_connection() {
    let header = header(Mode::Simple, 0, wire::CMD_WRITE, 0, MAX_DRAINED + 1);
    let (_, error) = parse(Mode::Simple, &header, &[usize::MAX]);
    assert_eq!(error, Some(TransmissionError::TooLong(MAX_DRAINED + 1)));
}

#[test]
fn another_magic_number_ends_the_connection() {
    let compact = header(Mode::Simple, 0, wire::CMD_FLUSH, 0, 0);
    let (_, error) = parse(Mode::Extended, &compact, &[usize::MAX]);
    assert_eq!(error, Some(TransmissionError::Magic(wire::REQUEST_MAGIC)));
}

#[test]
fn a_large_payload_is_received_into_its_own_buffer() {
    let mut reader = RequestReader::new(
        Mode::Simple,
        &header(Mode::Simple, 0, wire::CMD_WRITE, 0, 1 << 20),
    );
    assert!(reader.next().unwrap().is_none());
    assert_eq!(reader.space().len(), 1 << 20);
    reader.received((1 << 20) - 100);
    assert!(reader.next().unwrap().is_none());
    assert!(
        reader.space().len() > 100,
        "the rest comes together with what follows"
    );
}

fn any_request() -> impl Strategy<Value = (u16, u16, u64, usize)> {
    let flags = prop_oneof![4 => Just(0), 1 => any::<u16>()];
    let kind = prop_oneof![4 => Just(wire::CMD_WRITE), 4 => 0u16..9, 1 => any::<u16>()];
    let len = prop_oneof![8 => 0usize..5000, 1 => 0usize..600_000];
    (flags, kind, any::<u64>(), len)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_same_stream_gives_the_same_requests_however_it_is_cut(
        requests in proptest::collection::vec(any_request(), 1..30),
        mode in 0usize..3,
        cuts in proptest::collection::vec(1usize..50_000, 1..20),
        small_cuts in proptest::collection::vec(1usize..40, 1..20),
    ) {
        let mode = MODES[mode];
        let mut stream = Vec::new();
        for (n, (flags, kind, offset, len)) in requests.into_iter().enumerate() {
            stream.extend(header(mode, flags, kind, offset, len as u64));
            let flagged = mode == Mode::Extended && flags & wire::CMD_FLAG_PAYLOAD_LEN != 0;
            if flagged || kind == wire::CMD_WRITE {
                stream.extend(std::iter::repeat_n(u8::try_from(n).unwrap(), len));
            }
        }
        let whole = parse(mode, &stream, &[usize::MAX]);
        prop_assert_eq!(&whole.1, &None);
        prop_assert_eq!(&parse(mode, &stream, &cuts), &whole);
        prop_assert_eq!(&parse(mode, &stream, &small_cuts), &whole);
    }

    #[test]
    fn garbage_is_an_error_or_requests_but_never_a_panic(
        mut stream in proptest::collection::vec(any::<u8>(), 0..400),
        keep_magic in any::<bool>(),
        mode in 0usize..3,
    ) {
        let mode = MODES[mode];
        if keep_magic {
            let magic = header(mode, 0, 0, 0, 0);
            let len = stream.len().min(4);
            stream[..len].copy_from_slice(&magic[..len]);
        }
        let whole = parse(mode, &stream, &[usize::MAX]);
        prop_assert_eq!(parse(mode, &stream, &[1]), whole);
    }
}

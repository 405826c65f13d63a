use super::*;
use proptest::prelude::*;

const FLAGS: u16 = wire::TX_HAS_FLAGS | wire::TX_SEND_FLUSH;

fn wanted(tls: bool) -> Wanted {
    Wanted {
        export: "disk".into(),
        tls,
        dialect: Dialect::Extended,
        allocation: true,
    }
}

fn greeting(flags: u16) -> Vec<u8> {
    [
        &wire::NBD_MAGIC.to_be_bytes()[..],
        &wire::OPTION_MAGIC.to_be_bytes(),
        &flags.to_be_bytes(),
    ]
    .concat()
}

fn reply(option: u32, kind: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = wire::OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn export_info(size: u64, flags: u16) -> Vec<u8> {
    let payload = [
        &wire::INFO_EXPORT.to_be_bytes()[..],
        &size.to_be_bytes(),
        &flags.to_be_bytes(),
    ]
    .concat();
    reply(wire::OPT_GO, wire::REP_INFO, &payload)
}

fn block_info(minimum: u32, preferred: u32, maximum: u32) -> Vec<u8> {
    let numbers = [minimum, preferred, maximum].map(u32::to_be_bytes).concat();
    let payload = [&wire::INFO_BLOCK_SIZE.to_be_bytes()[..], &numbers].concat();
    reply(wire::OPT_GO, wire::REP_INFO, &payload)
}

fn context(number: u32, name: &str) -> Vec<u8> {
    let payload = [&number.to_be_bytes()[..], name.as_bytes()].concat();
    reply(wire::OPT_SET_META_CONTEXT, wire::REP_META_CONTEXT, &payload)
}

fn ack(option: u32) -> Vec<u8> {
    reply(option, wire::REP_ACK, &[])
}

/// Everything that a well-stocked server says.
fn whole_conversation() -> Vec<Vec<u8>> {
    vec![
        greeting(3),
        ack(wire::OPT_EXTENDED_HEADERS),
        context(4, wire::BASE_ALLOCATION),
        ack(wire::OPT_SET_META_CONTEXT),
        export_info(1 << 30, FLAGS),
        reply(wire::OPT_GO, wire::REP_INFO, &[0, 2, b'h', b'i']),
        block_info(1, 4096, u32::MAX),
        ack(wire::OPT_GO),
    ]
}

/// Feeds the pieces; at [`Event::StartTls`] the handshake succeeds at once.
fn run(wanted: Wanted, pieces: &[&[u8]]) -> (Vec<Event>, Option<NegotiationError>) {
    let mut negotiation = Negotiation::new(wanted);
    let mut all = Vec::new();
    for piece in pieces {
        let mut events = Vec::new();
        let result = negotiation.receive(piece, &mut events);
        let tls = events.contains(&Event::StartTls);
        all.append(&mut events);
        if let Err(error) = result {
            return (all, Some(error));
        }
        if tls {
            negotiation.tls_started(&mut all);
        }
    }
    (all, None)
}

fn run_all(pieces: &[Vec<u8>]) -> (Vec<Event>, Option<NegotiationError>) {
    run(
        wanted(false),
        &pieces.iter().map(Vec::as_slice).collect::<Vec<_>>(),
    )
}

/// Numbers of the options that were asked.
fn asked(events: &[Event]) -> Vec<u32> {
    let sent = events.iter().filter_map(|event| match event {
        Event::Send(bytes) if bytes.len() > 4 => Some(be32(bytes, 8)),
        _ => None,
    });
    sent.collect()
}

#[test]
fn everything_that_a_server_offers_is_taken() {
    let (events, error) = run_all(&whole_conversation());
    assert_eq!(error, None);
    assert_eq!(events[0], Event::Send(vec![0, 0, 0, 3]));
    let options = [
        wire::OPT_EXTENDED_HEADERS,
        wire::OPT_SET_META_CONTEXT,
        wire::OPT_GO,
    ];
    assert_eq!(asked(&events), options);
    let info = ExportInfo {
        size: 1 << 30,
        flags: FLAGS,
        block: BlockSizes {
            minimum: 1,
            preferred: 4096,
            maximum: wire::MAX_PAYLOAD,
        },
        dialect: Dialect::Extended,
        context: Some(4),
    };
    assert_eq!(events.last(), Some(&Event::Ready(info)));
    assert!(info.has(wire::TX_SEND_FLUSH) && !info.has(wire::TX_SEND_FLUSH | wire::TX_SEND_FUA));
}

#[test]
fn a_server_that_knows_only_the_necessary_is_used_as_it_is() {
    let conversation = [
        greeting(1),
        reply(wire::OPT_EXTENDED_HEADERS, wire::REP_ERR_UNSUP, b"what?"),
        reply(wire::OPT_STRUCTURED_REPLY, wire::REP_ERR_UNSUP, &[]),
        export_info(777, 0xfffe),
        ack(wire::OPT_GO),
    ];
    let (events, error) = run_all(&conversation);
    assert_eq!(error, None);
    assert_eq!(events[0], Event::Send(vec![0, 0, 0, 1]));
    let info = ExportInfo {
        size: 777,
        flags: 0,
        block: DEFAULT_BLOCK,
        dialect: Dialect::Simple,
        context: None,
    };
    assert_eq!(events.last(), Some(&Event::Ready(info)));
}

#[test]
fn a_server_without_contexts_still_serves() {
    let conversation = [
        greeting(3),
        reply(wire::OPT_EXTENDED_HEADERS, wire::REP_ERR_UNSUP, &[]),
        ack(wire::OPT_STRUCTURED_REPLY),
        reply(wire::OPT_SET_META_CONTEXT, wire::REP_ERR_UNSUP, &[]),
        export_info(512, FLAGS),
        ack(wire::OPT_GO),
    ];
    let (events, _) = run_all(&conversation);
    let Some(Event::Ready(info)) = events.last() else {
        panic!("not ready: {events:?}")
    };
    assert_eq!((info.dialect, info.context), (Dialect::Structured, None));
}

#[test]
fn with_tls_nothing_else_is_asked_before_the_handshake() {
    let (events, error) = run(wanted(true), &[&greeting(3), &ack(wire::OPT_STARTTLS)]);
    assert_eq!(error, None);
    let tls = events
        .iter()
        .position(|event| *event == Event::StartTls)
        .expect("TLS starts");
    assert_eq!(asked(&events[..tls]), [wire::OPT_STARTTLS]);
    assert_eq!(asked(&events[tls..]), [wire::OPT_EXTENDED_HEADERS]);
}

#[test]
fn plain_bytes_that_follow_the_consent_to_tls_are_refused() {
    let injected = [ack(wire::OPT_STARTTLS), ack(wire::OPT_EXTENDED_HEADERS)].concat();
    let (_, error) = run(wanted(true), &[&greeting(3), &injected]);
    assert!(matches!(error, Some(NegotiationError::Garbage(_))));
}

#[test]
fn a_server_without_tls_is_not_used_where_tls_is_wanted() {
    let refusal = reply(wire::OPT_STARTTLS, wire::REP_ERR_UNSUP, b"no TLS here");
    let (_, error) = run(wanted(true), &[&greeting(3), &refusal]);
    assert_eq!(error, Some(NegotiationError::TlsRefused("no TLS here".into())));
}

#[test]
fn refusals_say_why() {
    let refused_by = |option, kind| {
        let mut conversation = whole_conversation();
        let place = if option == wire::OPT_GO { 4 } else { 1 };
        conversation.truncate(place);
        conversation.push(reply(option, kind, b"because"));
        run_all(&conversation).1.expect("refused")
    };
    let reason = || "because".to_owned();
    let unknown = NegotiationError::UnknownExport {
        export: "disk".into(),
        reason: reason(),
    };
    assert_eq!(refused_by(wire::OPT_GO, wire::REP_ERR_UNKNOWN), unknown);
    assert_eq!(
        refused_by(wire::OPT_GO, wire::REP_ERR_TLS_REQD),
        NegotiationError::TlsRequired
    );
    assert_eq!(
        refused_by(wire::OPT_EXTENDED_HEADERS, wire::REP_ERR_TLS_REQD),
        NegotiationError::TlsRequired
    );
    assert_eq!(
        refused_by(wire::OPT_GO, wire::REP_ERR_SHUTDOWN),
        NegotiationError::ShuttingDown(reason())
    );
    let policy = NegotiationError::Refused {
        kind: wire::REP_ERR_POLICY,
        reason: reason(),
    };
    assert_eq!(refused_by(wire::OPT_GO, wire::REP_ERR_POLICY), policy);
}

#[test]
fn what_is_not_a_newstyle_server_is_told_apart() {
    assert_eq!(
        run_all(&[b"220 mail.example.com ESMTP".to_vec()]).1,
        Some(NegotiationError::NotNbd)
    );
    let old = [
        &wire::NBD_MAGIC.to_be_bytes()[..],
        &OLD_STYLE_MAGIC.to_be_bytes(),
        &[0; 2],
    ]
    .concat();
    assert_eq!(run_all(&[old]).1, Some(NegotiationError::OldStyle));
    assert_eq!(run_all(&[greeting(0)]).1, Some(NegotiationError::OldStyle));
}

#[test]
fn replies_against_the_protocol_are_refused() {
    let broken_by = |place: usize, bytes: Vec<u8>| {
        let mut conversation = whole_conversation();
        conversation.truncate(place);
        conversation.push(bytes);
        matches!(run_all(&conversation).1, Some(NegotiationError::Garbage(_)))
    };
    assert!(broken_by(1, vec![0; 20]), "no magic number");
    assert!(broken_by(1, ack(wire::OPT_GO)), "another option");
    assert!(
        broken_by(1, reply(wire::OPT_EXTENDED_HEADERS, wire::REP_INFO, &[])),
        "wrong kind"
    );
    assert!(
        broken_by(1, reply(wire::OPT_EXTENDED_HEADERS, wire::REP_ACK, &[0])),
        "an acknowledgement with payload"
    );
    assert!(broken_by(2, context(1, "other:context")), "another context");
    assert!(broken_by(4, ack(wire::OPT_GO)), "no size");
    assert!(
        broken_by(4, reply(wire::OPT_GO, wire::REP_INFO, &[0])),
        "cut information"
    );
    assert!(
        broken_by(4, reply(wire::OPT_GO, wire::REP_INFO, &[0, 0, 1])),
        "information of the wrong length"
    );
    assert!(
        broken_by(4, block_info(3, 4096, 65536)),
        "a block size that is no power of two"
    );
    assert!(broken_by(4, block_info(0, 4096, 65536)), "no block size");
    assert!(
        broken_by(4, block_info(1 << 20, 1 << 20, 1 << 25)),
        "a minimum beyond the protocol's"
    );
    assert!(
        broken_by(4, block_info(4096, 4096, 512)),
        "a maximum below the minimum"
    );
    assert!(broken_by(8, vec![0]), "bytes after the last answer");
}

#[test]
fn an_oversized_reply_is_refused_before_its_payload_comes() {
    let mut head = reply(wire::OPT_EXTENDED_HEADERS, wire::REP_ERR_UNSUP, &[]);
    head[16..].fill(0xff);
    assert_eq!(
        run_all(&[greeting(3), head]).1,
        Some(NegotiationError::Oversized { len: u32::MAX })
    );
}

proptest! {
    #[test]
    fn garbage_never_panics(
        tls in any::<bool>(), good in 0usize..8, bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut stream = whole_conversation()[..good].concat();
        stream.extend(bytes);
        run(wanted(tls), &[&stream]);
    }

    #[test]
    fn the_same_conversation_cut_anywhere_gives_the_same_events(
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut stream = whole_conversation().concat();
        if let Some((place, value)) = damage {
            let place = place.index(stream.len());
            stream[place] = value;
        }
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        ends.extend([0, stream.len()]);
        ends.sort_unstable();
        let pieces: Vec<&[u8]> = ends.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect();
        prop_assert_eq!(run(wanted(false), &pieces), run(wanted(false), &[&stream]));
    }
}

use super::*;
use crate::export::nbd::block_status::MetaContext;
use proptest::prelude::*;

/// One export `vol` for everybody, one `other`, one `secret` for nobody, one `tls`.
struct Shelf;

impl Exports for Shelf {
    fn names(&self) -> Vec<String> {
        vec!["other".into(), "vol".into()]
    }

    fn info(&self, name: &str) -> Result<ExportInfo, Refusal> {
        match name {
            "vol" | "other" => Ok(ExportInfo {
                capacity: 1 << 30,
                block: 512,
                preferred: 4096,
                read_only: name == "other",
                multi_connection: name == "vol",
            }),
            "secret" => Err(Refusal::Policy),
            "tls" => Err(Refusal::NeedsTls),
            _ => Err(Refusal::Unknown),
        }
    }
}

const CLIENT_FLAGS: [u8; 4] = [0, 0, 0, 3];

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap();
    [
        &wire::OPTION_MAGIC.to_be_bytes()[..],
        &number.to_be_bytes(),
        &len.to_be_bytes(),
        data,
    ]
    .concat()
}

fn string(text: &str) -> Vec<u8> {
    [
        &u32::try_from(text.len()).unwrap().to_be_bytes()[..],
        text.as_bytes(),
    ]
    .concat()
}

fn go(number: u32, name: &str, infos: &[u16]) -> Vec<u8> {
    let mut data = string(name);
    data.extend(u16::try_from(infos.len()).unwrap().to_be_bytes());
    data.extend(infos.iter().flat_map(|info| info.to_be_bytes()));
    option(number, &data)
}

fn contexts(number: u32, export: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = string(export);
    data.extend(u32::try_from(queries.len()).unwrap().to_be_bytes());
    data.extend(queries.iter().flat_map(|query| string(query)));
    option(number, &data)
}

/// Everything that happens until more bytes are needed, or to the end.
fn talk(negotiation: &mut Negotiation, bytes: &[u8]) -> Result<(Step, Vec<u8>), NegotiationError> {
    let mut out = Vec::new();
    let mut rest = bytes;
    loop {
        match negotiation.step(&Shelf, &mut out)? {
            Step::Answered => {}
            Step::Receive if !rest.is_empty() => {
                let (now, later) = rest.split_at(rest.len().min(1000));
                negotiation.receive(now)?;
                rest = later;
            }
            step => return Ok((step, out)),
        }
    }
}

fn begin(tls: TlsStage) -> Negotiation {
    let mut negotiation = Negotiation::new(tls);
    assert_eq!(
        talk(&mut negotiation, &CLIENT_FLAGS),
        Ok((Step::Receive, Vec::new()))
    );
    negotiation
}

/// The kinds and data of the replies.
fn replies(mut out: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut replies = Vec::new();
    while !out.is_empty() {
        let mut fields = Fields::new(out);
        assert_eq!(fields.u64(), Some(wire::OPTION_REPLY_MAGIC));
        let (_option, kind, len) = (
            fields.u32(),
            fields.u32().unwrap(),
            fields.u32().unwrap() as usize,
        );
        replies.push((kind, fields.bytes(len).unwrap().to_vec()));
        out = &out[20 + len..];
    }
    replies
}

fn kinds(negotiation: &mut Negotiation, bytes: &[u8]) -> Vec<u32> {
    let (_, out) = talk(negotiation, bytes).unwrap();
    replies(&out).into_iter().map(|(kind, _)| kind).collect()
}

#[test]
fn go_tells_size_flags_and_block_sizes_and_attaches() {
    let mut negotiation = begin(TlsStage::Unavailable);
    let (step, out) = talk(&mut negotiation, &go(wire::OPT_GO, "vol", &[wire::INFO_NAME])).unwrap();
    let agreed = Agreed {
        export: "vol".into(),
        mode: Mode::Simple,
        contexts: MetaContexts::new(),
    };
    assert_eq!(step, Step::Attach(agreed));
    let replies = replies(&out);
    let flags = 0b1001_0110_1101_u16; // has flags, flush, FUA, trim, write zeroes, multi-conn, fast zero
    assert_eq!(
        replies[0].1,
        [&[0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0][..], &flags.to_be_bytes()].concat()
    );
    assert_eq!(replies[1].1, [0, 3, 0, 0, 2, 0, 0, 0, 0x10, 0, 2, 0, 0, 0]);
    assert_eq!(replies[2].1, b"\0\x01vol");
    assert_eq!(replies[3], (wire::REP_ACK, Vec::new()));
}

#[test]
fn a_read_only_export_says_so_and_fragments_are_offered_with_structured_replies() {
    let mut negotiation = begin(TlsStage::Unavailable);
    let stream = [
        option(wire::OPT_STRUCTURED_REPLY, &[]),
        go(wire::OPT_INFO, "other", &[]),
    ]
    .concat();
    let (step, out) = talk(&mut negotiation, &stream).unwrap();
    assert_eq!(step, Step::Receive, "INFO does not attach");
    let about = &replies(&out)[1].1;
    let flags = u16::from_be_bytes([about[10], about[11]]);
    assert_ne!(flags & wire::TX_READ_ONLY, 0);
    assert_ne!(flags & wire::TX_SEND_DF, 0);
    assert_eq!(flags & wire::TX_CAN_MULTI_CONN, 0);
}

#[test]
fn export_name_attaches_the_old_way_with_or_without_zeros() {
    for (client_flags, len) in [(3u8, 10), (1, 134)] {
        let mut negotiation = Negotiation::new(TlsStage::Unavailable);
        let stream = [
            &[0, 0, 0, client_flags][..],
            &option(wire::OPT_EXPORT_NAME, b"vol"),
        ]
        .concat();
        let (step, out) = talk(&mut negotiation, &stream).unwrap();
        assert!(matches!(step, Step::Attach(agreed) if agreed.export == "vol"));
        assert_eq!(out.len(), len);
    }
    let unknown = talk(
        &mut begin(TlsStage::Unavailable),
        &option(wire::OPT_EXPORT_NAME, b"nothing"),
    );
    assert!(matches!(unknown, Err(NegotiationError::ExportName(_))));
}

#[test]
fn exports_that_cannot_be_attached_are_refused_and_the_connection_lives_on() {
    let cases = [
        ("nothing", wire::REP_ERR_UNKNOWN),
        ("secret", wire::REP_ERR_POLICY),
        ("tls", wire::REP_ERR_TLS_REQD),
    ];
    let mut negotiation = begin(TlsStage::Offered);
    for (name, kind) in cases {
        assert_eq!(kinds(&mut negotiation, &go(wire::OPT_GO, name, &[])), [kind]);
    }
    assert!(matches!(
        talk(&mut negotiation, &go(wire::OPT_GO, "vol", &[])),
        Ok((Step::Attach(_), _))
    ));
}

#[test]
fn malformed_unknown_and_oversized_options_are_refused_and_the_connection_lives_on() {
    let mut negotiation = begin(TlsStage::Unavailable);
    let long_name = go(wire::OPT_GO, &"x".repeat(5000), &[]);
    let cases = [
        (option(99, b"data"), wire::REP_ERR_UNSUP),
        (option(wire::OPT_LIST, b"data"), wire::REP_ERR_INVALID),
        (option(wire::OPT_GO, b"\0\0\0\x09vol"), wire::REP_ERR_INVALID),
        (option(wire::OPT_GO, b"\0\0\0\x01\xff\0\0"), wire::REP_ERR_INVALID),
        (
            option(wire::OPT_GO, b"\0\0\0\x03vol\0\0trailing"),
            wire::REP_ERR_INVALID,
        ),
        (long_name, wire::REP_ERR_INVALID),
        (
            option(wire::OPT_GO, &vec![0; MAX_OPTION + 1]),
            wire::REP_ERR_TOO_BIG,
        ),
        (option(wire::OPT_STARTTLS, &[]), wire::REP_ERR_POLICY),
        (
            contexts(wire::OPT_SET_META_CONTEXT, "vol", &["base:allocation"]),
            wire::REP_ERR_INVALID,
        ),
    ];
    for (stream, kind) in cases {
        assert_eq!(kinds(&mut negotiation, &stream), [kind]);
    }
    assert_eq!(
        kinds(&mut negotiation, &option(wire::OPT_LIST, &[])),
        [wire::REP_SERVER, wire::REP_SERVER, wire::REP_ACK]
    );
}

#[test]
fn modes_go_up_only() {
    let structured = option(wire::OPT_STRUCTURED_REPLY, &[]);
    let extended = option(wire::OPT_EXTENDED_HEADERS, &[]);
    let mut negotiation = begin(TlsStage::Unavailable);
    assert_eq!(kinds(&mut negotiation, &structured), [wire::REP_ACK]);
    assert_eq!(kinds(&mut negotiation, &structured), [wire::REP_ERR_INVALID]);
    assert_eq!(kinds(&mut negotiation, &extended), [wire::REP_ACK]);
    assert_eq!(
        kinds(&mut negotiation, &structured),
        [wire::REP_ERR_EXT_HEADER_REQD]
    );
    assert_eq!(kinds(&mut negotiation, &extended), [wire::REP_ERR_INVALID]);
    let (step, _) = talk(&mut negotiation, &go(wire::OPT_GO, "vol", &[])).unwrap();
    assert!(matches!(step, Step::Attach(agreed) if agreed.mode == Mode::Extended));
}

fn chosen(stream: &[u8]) -> MetaContexts {
    let mut negotiation = begin(TlsStage::Unavailable);
    let stream = [
        &option(wire::OPT_STRUCTURED_REPLY, &[]),
        stream,
        &go(wire::OPT_GO, "vol", &[]),
    ]
    .concat();
    match talk(&mut negotiation, &stream) {
        Ok((Step::Attach(agreed), _)) => agreed.contexts,
        other => panic!("not attached: {other:?}"),
    }
}

#[test]
fn contexts_are_those_set_last_for_the_export_attached_to() {
    let set = |export, queries: &[&str]| contexts(wire::OPT_SET_META_CONTEXT, export, queries);
    let base = "base:allocation";
    assert_eq!(
        chosen(&set("vol", &["x:y", base]))[..],
        [MetaContext::BaseAllocation]
    );
    assert!(chosen(&contexts(wire::OPT_LIST_META_CONTEXT, "vol", &[base])).is_empty());
    assert!(chosen(&set("other", &[base])).is_empty());
    assert!(chosen(&[set("vol", &[base]), set("vol", &[])].concat()).is_empty());
    assert!(chosen(&[set("vol", &[base]), set("nothing", &[base])].concat()).is_empty());
}

#[test]
fn where_tls_is_required_nothing_is_told_before_it() {
    let mut negotiation = begin(TlsStage::Required);
    let options = [
        option(wire::OPT_LIST, &[]),
        option(wire::OPT_STRUCTURED_REPLY, &[]),
        go(wire::OPT_GO, "vol", &[]),
        go(wire::OPT_INFO, "nothing", &[]),
        contexts(wire::OPT_LIST_META_CONTEXT, "vol", &[]),
        option(99, &[]),
    ];
    for stream in options {
        assert_eq!(kinds(&mut negotiation, &stream), [wire::REP_ERR_TLS_REQD]);
    }
    assert!(
        talk(
            &mut begin(TlsStage::Required),
            &option(wire::OPT_EXPORT_NAME, b"vol")
        )
        .is_err()
    );
    let (step, _) = talk(&mut negotiation, &option(wire::OPT_STARTTLS, &[])).unwrap();
    assert_eq!(step, Step::StartTls);
    let (step, _) = talk(&mut begin(TlsStage::Required), &option(wire::OPT_ABORT, &[])).unwrap();
    assert_eq!(step, Step::Close);
}

#[test]
fn what_was_negotiated_before_tls_is_forgotten() {
    let mut negotiation = begin(TlsStage::Offered);
    let stream = [
        option(wire::OPT_EXTENDED_HEADERS, &[]),
        option(wire::OPT_STARTTLS, &[]),
    ]
    .concat();
    assert_eq!(talk(&mut negotiation, &stream).unwrap().0, Step::StartTls);
    let mut secured = negotiation.secured().unwrap();
    let (step, _) = talk(&mut secured, &go(wire::OPT_GO, "vol", &[])).unwrap();
    assert!(matches!(step, Step::Attach(agreed) if agreed.mode == Mode::Simple));
    assert_eq!(
        kinds(&mut secured, &option(wire::OPT_STARTTLS, &[])),
        [wire::REP_ERR_INVALID]
    );
}

#[test]
fn bytes_between_starttls_and_tls_end_the_connection() {
    let mut negotiation = begin(TlsStage::Required);
    let stream = [option(wire::OPT_STARTTLS, &[]), go(wire::OPT_GO, "vol", &[])].concat();
    assert_eq!(talk(&mut negotiation, &stream).unwrap().0, Step::StartTls);
    assert_eq!(negotiation.secured().err(), Some(NegotiationError::BeforeTls));
}

#[test]
fn a_client_that_never_comes_to_the_point_is_left() {
    let lists = option(wire::OPT_LIST, &[]).repeat(MAX_OPTIONS as usize + 1);
    assert_eq!(
        talk(&mut begin(TlsStage::Unavailable), &lists),
        Err(NegotiationError::TooManyOptions)
    );
    let long = option(99, &vec![0; MAX_BYTES]);
    assert_eq!(
        talk(&mut begin(TlsStage::Unavailable), &long),
        Err(NegotiationError::TooManyBytes)
    );
}

#[test]
fn what_is_no_option_ends_the_connection() {
    let result = talk(&mut begin(TlsStage::Unavailable), b"GET / HTTP/1.1\r\n\r\n");
    assert!(matches!(result, Err(NegotiationError::Magic(_))));
    let flags = talk(&mut Negotiation::new(TlsStage::Unavailable), &[0, 0, 1, 3]);
    assert_eq!(flags, Err(NegotiationError::ClientFlags(0x103)));
}

fn any_option() -> impl Strategy<Value = Vec<u8>> {
    let data = prop_oneof![
        Just(Vec::new()),
        proptest::collection::vec(any::<u8>(), 0..60),
        Just(go(0, "vol", &[1, 2])[16..].to_vec()),
        Just(contexts(0, "vol", &["base:allocation", "base:"])[16..].to_vec()),
    ];
    (0u32..14, data).prop_map(|(number, data)| option(number, &data))
}

proptest! {
    #[test]
    fn the_same_options_get_the_same_answers_however_they_are_cut(
        options in proptest::collection::vec(any_option(), 0..12),
        garbage in proptest::collection::vec(any::<u8>(), 0..40),
        cut in 1usize..30,
    ) {
        let stream = [options.concat(), garbage].concat();
        let whole = talk(&mut begin(TlsStage::Offered), &stream);
        let mut negotiation = begin(TlsStage::Offered);
        let mut pieces = stream.chunks(cut);
        let mut out = Vec::new();
        let in_pieces = loop {
            match negotiation.step(&Shelf, &mut out) {
                Ok(Step::Answered) => {}
                Ok(Step::Receive) => match pieces.next() {
                    Some(piece) => negotiation.receive(piece).unwrap(),
                    None => break Ok((Step::Receive, out)),
                },
                Ok(step) => break Ok((step, out)),
                Err(error) => break Err(error),
            }
        };
        prop_assert_eq!(in_pieces, whole);
    }
}

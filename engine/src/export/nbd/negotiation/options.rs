//! One option: its data in, its replies out.

use super::{Agreed, ExportInfo, Exports, Negotiation, NegotiationError, Step, TlsStage};
use crate::export::access::Refusal;
use crate::export::nbd::Mode;
use crate::export::nbd::block_status::MetaContext;
use crate::export::nbd::fields::Fields;
use crate::nbd::wire;

/// An option that is answered with an error, and why.
type Refused = (u32, &'static str);

const MALFORMED: Refused = (wire::REP_ERR_INVALID, "the option's data is malformed");

pub(super) fn answer(
    state: &mut Negotiation,
    exports: &impl Exports,
    option: u32,
    data: &[u8],
    out: &mut Vec<u8>,
) -> Result<Step, NegotiationError> {
    let locked = state.tls == TlsStage::Required && !matches!(option, wire::OPT_STARTTLS | wire::OPT_ABORT);
    if option == wire::OPT_EXPORT_NAME {
        let refusal = if locked { Err(Refusal::NeedsTls) } else { Ok(()) };
        return refusal
            .map_err(|refusal| NegotiationError::ExportName(refusal.to_string()))
            .and_then(|()| export_name(state, exports, data, out));
    }
    let answered = if locked {
        Err((wire::REP_ERR_TLS_REQD, "start TLS first"))
    } else {
        match option {
            wire::OPT_ABORT => {
                reply(out, option, wire::REP_ACK, &[]);
                Ok(Step::Close)
            }
            wire::OPT_LIST => list(exports, data, out),
            wire::OPT_STARTTLS => start_tls(state, data, out),
            wire::OPT_INFO | wire::OPT_GO => info_or_go(state, exports, option, data, out),
            wire::OPT_STRUCTURED_REPLY | wire::OPT_EXTENDED_HEADERS => raise_mode(state, option, data, out),
            wire::OPT_LIST_META_CONTEXT | wire::OPT_SET_META_CONTEXT => {
                meta_context(state, exports, option, data, out)
            }
            _ => Err((wire::REP_ERR_UNSUP, "the option is not supported")),
        }
    };
    Ok(answered.unwrap_or_else(|(kind, why)| {
        refuse(out, option, kind, why);
        Step::Answered
    }))
}

fn reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    let len = u32::try_from(data.len()).expect("a reply carries a name and a few numbers");
    out.extend_from_slice(&wire::OPTION_REPLY_MAGIC.to_be_bytes());
    for number in [option, kind, len] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(data);
}

pub(super) fn refuse(out: &mut Vec<u8>, option: u32, kind: u32, why: &str) {
    reply(out, option, kind, why.as_bytes());
}

fn refused(refusal: Refusal) -> Refused {
    match refusal {
        Refusal::Unknown => (wire::REP_ERR_UNKNOWN, "no such export"),
        Refusal::Policy => (wire::REP_ERR_POLICY, "this client may not use the export"),
        Refusal::NeedsTls => (wire::REP_ERR_TLS_REQD, "the export is served over TLS only"),
    }
}

fn must_be_empty(data: &[u8]) -> Result<(), Refused> {
    if data.is_empty() { Ok(()) } else { Err(MALFORMED) }
}

fn transmission_flags(info: &ExportInfo, mode: Mode) -> u16 {
    let mut flags = wire::TX_HAS_FLAGS
        | wire::TX_SEND_FLUSH
        | wire::TX_SEND_FUA
        | wire::TX_SEND_TRIM
        | wire::TX_SEND_WRITE_ZEROES
        | wire::TX_SEND_FAST_ZERO;
    if mode >= Mode::Structured {
        flags |= wire::TX_SEND_DF;
    }
    if info.read_only {
        flags |= wire::TX_READ_ONLY;
    }
    if info.multi_connection {
        flags |= wire::TX_CAN_MULTI_CONN;
    }
    flags
}

fn agree(state: &mut Negotiation, export: &str) -> Agreed {
    let contexts = state
        .contexts
        .take()
        .filter(|(chosen_for, _)| chosen_for == export);
    Agreed {
        export: export.into(),
        mode: state.mode,
        contexts: contexts.unwrap_or_default().1,
    }
}

/// The old way to attach, which knows no error reply.
fn export_name(
    state: &mut Negotiation,
    exports: &impl Exports,
    data: &[u8],
    out: &mut Vec<u8>,
) -> Result<Step, NegotiationError> {
    let name = Some(data).filter(|data| data.len() <= wire::MAX_STRING);
    let name = name
        .and_then(|data| std::str::from_utf8(data).ok())
        .ok_or_else(|| NegotiationError::ExportName("the name is malformed".into()))?;
    let info = exports
        .info(name)
        .map_err(|refusal| NegotiationError::ExportName(refusal.to_string()))?;
    out.extend_from_slice(&info.capacity.to_be_bytes());
    out.extend_from_slice(&transmission_flags(&info, state.mode).to_be_bytes());
    if state.zeroes_after_name {
        out.extend_from_slice(&[0; 124]);
    }
    Ok(Step::Attach(agree(state, name)))
}

fn list(exports: &impl Exports, data: &[u8], out: &mut Vec<u8>) -> Result<Step, Refused> {
    must_be_empty(data)?;
    for name in exports.names() {
        let len = u32::try_from(name.len()).expect("names are at most 4096 bytes");
        let entry = [&len.to_be_bytes(), name.as_bytes()].concat();
        reply(out, wire::OPT_LIST, wire::REP_SERVER, &entry);
    }
    reply(out, wire::OPT_LIST, wire::REP_ACK, &[]);
    Ok(Step::Answered)
}

fn start_tls(state: &Negotiation, data: &[u8], out: &mut Vec<u8>) -> Result<Step, Refused> {
    must_be_empty(data)?;
    match state.tls {
        TlsStage::Unavailable => Err((wire::REP_ERR_POLICY, "TLS is not set up here")),
        TlsStage::Established => Err((wire::REP_ERR_INVALID, "TLS is established already")),
        TlsStage::Offered | TlsStage::Required => {
            reply(out, wire::OPT_STARTTLS, wire::REP_ACK, &[]);
            Ok(Step::StartTls)
        }
    }
}

fn raise_mode(state: &mut Negotiation, option: u32, data: &[u8], out: &mut Vec<u8>) -> Result<Step, Refused> {
    must_be_empty(data)?;
    let wanted = if option == wire::OPT_EXTENDED_HEADERS {
        Mode::Extended
    } else {
        Mode::Structured
    };
    if state.mode == wanted {
        return Err((wire::REP_ERR_INVALID, "negotiated already"));
    }
    if state.mode > wanted {
        return Err((
            wire::REP_ERR_EXT_HEADER_REQD,
            "extended headers are negotiated already",
        ));
    }
    state.mode = wanted;
    reply(out, option, wire::REP_ACK, &[]);
    Ok(Step::Answered)
}

/// The name and the kinds of information asked for.
fn parse_info(data: &[u8]) -> Option<(&str, Vec<u16>)> {
    let mut fields = Fields::new(data);
    let name = fields.string(wire::MAX_STRING)?;
    let count = fields.u16()?;
    let kinds = (0..count).map(|_| fields.u16()).collect::<Option<Vec<u16>>>()?;
    fields.is_empty().then_some((name, kinds))
}

fn info_or_go(
    state: &mut Negotiation,
    exports: &impl Exports,
    option: u32,
    data: &[u8],
    out: &mut Vec<u8>,
) -> Result<Step, Refused> {
    let (name, wanted) = parse_info(data).ok_or(MALFORMED)?;
    let info = exports.info(name).map_err(refused)?;
    let mut about = wire::INFO_EXPORT.to_be_bytes().to_vec();
    about.extend_from_slice(&info.capacity.to_be_bytes());
    about.extend_from_slice(&transmission_flags(&info, state.mode).to_be_bytes());
    reply(out, option, wire::REP_INFO, &about);

    let mut sizes = wire::INFO_BLOCK_SIZE.to_be_bytes().to_vec();
    for size in [info.block, info.preferred, wire::MAX_PAYLOAD] {
        sizes.extend_from_slice(&size.to_be_bytes());
    }
    reply(out, option, wire::REP_INFO, &sizes);

    if wanted.contains(&wire::INFO_NAME) {
        let named = [&wire::INFO_NAME.to_be_bytes(), name.as_bytes()].concat();
        reply(out, option, wire::REP_INFO, &named);
    }
    reply(out, option, wire::REP_ACK, &[]);
    if option == wire::OPT_GO {
        Ok(Step::Attach(agree(state, name)))
    } else {
        Ok(Step::Answered)
    }
}

fn parse_contexts(data: &[u8]) -> Option<(&str, Vec<&str>)> {
    let mut fields = Fields::new(data);
    let export = fields.string(wire::MAX_STRING)?;
    let count = fields.u32()?;
    let queries = (0..count)
        .map(|_| fields.string(wire::MAX_STRING))
        .collect::<Option<Vec<&str>>>()?;
    fields.is_empty().then_some((export, queries))
}

fn meta_context(
    state: &mut Negotiation,
    exports: &impl Exports,
    option: u32,
    data: &[u8],
    out: &mut Vec<u8>,
) -> Result<Step, Refused> {
    if state.mode < Mode::Structured {
        return Err((wire::REP_ERR_INVALID, "structured replies are needed first"));
    }
    let choose = option == wire::OPT_SET_META_CONTEXT;
    if choose {
        state.contexts = None;
    }
    let (export, queries) = parse_contexts(data).ok_or(MALFORMED)?;
    exports.info(export).map_err(refused)?;
    let contexts = if choose {
        MetaContext::named(&queries)
    } else {
        MetaContext::listed(&queries)
    };
    for context in &contexts {
        let id = if choose { context.id() } else { 0 };
        let entry = [&id.to_be_bytes(), context.name().as_bytes()].concat();
        reply(out, option, wire::REP_META_CONTEXT, &entry);
    }
    if choose {
        state.contexts = Some((export.into(), contexts));
    }
    reply(out, option, wire::REP_ACK, &[]);
    Ok(Step::Answered)
}

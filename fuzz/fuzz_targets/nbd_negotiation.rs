//! Whatever a client sends before transmission, the server answers or closes, with bounded memory.
#![no_main]

use ashlar_engine::export::access::Refusal;
use ashlar_engine::export::nbd::negotiation::{ExportInfo, Exports, MAX_OPTION, Negotiation, Step, TlsStage};
use libfuzzer_sys::fuzz_target;

struct Shelf;

impl Exports for Shelf {
    fn names(&self) -> Vec<String> {
        vec!["a".into()]
    }

    fn info(&self, name: &str) -> Result<ExportInfo, Refusal> {
        if name != "a" {
            return Err(Refusal::Unknown);
        }
        Ok(ExportInfo {
            capacity: 1 << 30,
            block: 512,
            preferred: 4096,
            read_only: false,
            multi_connection: true,
        })
    }
}

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (offered, piece, stream) = input;
    let tls = if offered {
        TlsStage::Offered
    } else {
        TlsStage::Unavailable
    };
    let mut negotiation = Negotiation::new(tls);
    let mut pieces = stream.chunks(usize::from(piece) + 1);
    let mut out = Vec::new();
    loop {
        out.clear();
        match negotiation.step(&Shelf, &mut out) {
            Ok(Step::Answered) => assert!(out.len() <= MAX_OPTION),
            Ok(Step::Receive) => match pieces.next() {
                Some(piece) if negotiation.receive(piece).is_ok() => {}
                _ => return,
            },
            Ok(Step::StartTls) => match negotiation.secured() {
                Ok(secured) => negotiation = secured,
                Err(_) => return,
            },
            Ok(Step::Attach(_) | Step::Close) | Err(_) => return,
        }
    }
});

//! Whatever a server sends, in the handshake or after it, the client neither panics nor takes memory for it that the
//! server did not send. The first byte chooses the phase and the dialect.
#![no_main]

use ashlar_engine::io::IoBuf;
use ashlar_engine::nbd::client::negotiation::Wanted;
use ashlar_engine::nbd::client::replies::Expected;
use ashlar_engine::nbd::client::{Dialect, Negotiation, Replies};
use ashlar_engine::types::ByteRange;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, stream)) = bytes.split_first() else {
        return;
    };
    let dialect = match choice % 4 {
        0 => Dialect::Simple,
        1 => Dialect::Structured,
        2 => Dialect::Extended,
        _ => {
            let wanted = Wanted {
                export: "x".into(),
                tls: choice & 4 != 0,
                dialect: Dialect::Extended,
                allocation: true,
            };
            let _ = Negotiation::new(wanted).receive(stream, &mut Vec::new());
            return;
        }
    };
    let mut replies = Replies::new(dialect, Some(1));
    replies.expect(
        1,
        Expected::Read {
            at: 4096,
            buf: IoBuf::new(64),
        },
        (),
    );
    replies.expect(2, Expected::Nothing { at: 512 }, ());
    replies.expect(
        3,
        Expected::Status {
            range: ByteRange::between(0, 4096),
        },
        (),
    );
    let _ = replies.receive(stream, &mut Vec::new());
});

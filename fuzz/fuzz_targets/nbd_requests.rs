//! Whatever a client sends in transmission becomes requests or closes the connection.
#![no_main]

use ashlar_engine::export::nbd::Mode;
use ashlar_engine::export::nbd::transmission::{Command, RequestReader};
use ashlar_engine::nbd::wire::MAX_PAYLOAD;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (mode, piece, stream) = input;
    let mode = [Mode::Simple, Mode::Structured, Mode::Extended][usize::from(mode % 3)];
    let mut reader = RequestReader::new(mode, &[]);
    let mut pieces = stream.chunks(usize::from(piece) + 1);
    loop {
        match reader.next() {
            Ok(Some(request)) if matches!(request.command, Command::Disconnect) => return,
            Ok(Some(request)) => assert!(request.payload() <= u64::from(MAX_PAYLOAD)),
            Err(_) => return,
            Ok(None) => {
                let Some(piece) = pieces.next() else { return };
                reader.space()[..piece.len()].copy_from_slice(piece);
                reader.received(piece.len());
            }
        }
    }
});

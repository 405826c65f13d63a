//! Any bytes are a record or are not; sealed, they are one, and whether its body is what was asked for is found without
//! a panic.
#![no_main]

use ashlar_engine::types::ByteRange;
use ashlar_engine::types::sealed::{HEADER_LEN, Kind, open, open_body, seal};
use ashlar_fuzz::Raw;
use libfuzzer_sys::fuzz_target;

const KIND: Kind = Kind {
    magic: *b"ASHLRfuz",
    version: 1,
};

type Body = (Vec<u64>, Option<String>, Vec<ByteRange>, Vec<Vec<u8>>);

fuzz_target!(|bytes: &[u8]| {
    if let Ok(body) = open_body(KIND, bytes) {
        assert!(HEADER_LEN + body.len() <= bytes.len());
    }
    let sealed = seal(KIND, &Raw(bytes));
    assert_eq!(open_body(KIND, &sealed), Ok(bytes));
    if let Ok(body) = open::<Body>(KIND, &sealed) {
        assert_eq!(open(KIND, &seal(KIND, &body)), Ok(body));
    }
});

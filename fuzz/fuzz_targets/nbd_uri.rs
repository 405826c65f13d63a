//! Any text parses to a URI that shows itself as one that parses to the same, or is refused.
#![no_main]

use ashlar_engine::nbd::NbdUri;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(uri) = text.parse::<NbdUri>() {
        assert_eq!(uri.to_string().parse(), Ok(uri));
    }
});

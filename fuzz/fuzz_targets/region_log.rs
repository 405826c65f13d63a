//! Whatever bits and sequences stand in a region log, with right checksums, its group opens and serves, or is held back.
#![no_main]

use ashlar_fuzz::{Edit, bench};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|edits: Vec<(u8, Edit)>| bench::start_after(&edits, &[b"ASHLRlog"]));

//! Whatever stands in the records on its disks, with right checksums, an appliance starts, or says why it does not;
//! what it serves can be used.
#![no_main]

use ashlar_fuzz::{Edit, bench};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|edits: Vec<(u8, Edit)>| bench::start_after(&edits, &[b"ASHLRsup", b"ASHLRmet", b"ASHLRlog"]));

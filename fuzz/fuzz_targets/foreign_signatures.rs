//! Whatever a device holds at its ends, what is recognised there lies within the device and can be shown; zeros are
//! nothing.
#![no_main]

use ashlar_engine::device::signature::{Content, detect, regions};
use libfuzzer_sys::fuzz_target;

/// Fills `region` with `bytes`, counted from its start or from its end in units that formats align to.
fn put(region: &mut [u8], place: i16, offset: u16, bytes: &[u8]) {
    let units = usize::from(place.unsigned_abs()) * 512;
    let start = match place {
        0.. => units,
        _ => region.len().saturating_sub(units),
    };
    let from = (start + usize::from(offset) % 4096).min(region.len());
    for (to, byte) in region[from..].iter_mut().zip(bytes) {
        *to = *byte;
    }
}

fuzz_target!(|input: (u64, u32, Vec<(bool, i16, u16, &[u8])>)| {
    let (far, small, patches) = input;
    // Small devices have overlapping regions; on large ones positions may overflow.
    let capacity = if small % 2 == 0 {
        u64::from(small) % (256 << 10)
    } else {
        far
    };
    let lens = regions(capacity).map(|range| (range.len() as usize).min(256 << 10));
    let (mut head, mut tail) = (vec![0; lens[0]], vec![0; lens[1]]);
    assert_eq!(
        detect(&Content {
            capacity,
            head: &head,
            tail: &tail
        }),
        []
    );
    for (at_tail, place, offset, bytes) in patches {
        put(if at_tail { &mut tail } else { &mut head }, place, offset, bytes);
    }
    for signature in detect(&Content {
        capacity,
        head: &head,
        tail: &tail,
    }) {
        assert!(signature.at < capacity);
        assert!(!signature.to_string().is_empty());
    }
});

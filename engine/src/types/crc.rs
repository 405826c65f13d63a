//! CRC32C (Castagnoli): what every checksum on a device is.

use crc_fast::{CrcAlgorithm, Digest};

pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Of parts that are taken as one.
pub fn crc32c_of(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    parts.iter().for_each(|part| digest.update(part));
    u32::try_from(digest.finalize()).expect("32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bit by bit, from its polynomial.
    fn plain(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _bit in 0..8 {
                crc = (crc >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(crc & 1));
            }
        }
        !crc
    }

    proptest! {
        #[test]
        fn it_is_that_of_the_polynomial_whole_and_in_parts(bytes: Vec<u8>, more in proptest::collection::vec(any::<u8>(), 4000..5000)) {
            prop_assert_eq!(crc32c(&bytes), plain(&bytes));
            prop_assert_eq!(crc32c(&more), plain(&more));
            prop_assert_eq!(crc32c_of(&[&bytes, &more]), plain(&[bytes, more].concat()));
        }
    }
}

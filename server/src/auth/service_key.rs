//! A key of the service's own: digests that nobody computes who has the catalog's tables and not the data folder.
//!
//! Invariant: it is made at the first start and stays. Digests for different purposes have nothing to do with each other.

use std::path::Path;

use ring::hmac;
use serde::{Deserialize, Serialize};

use super::secrets;
use super::sessions::KeysError;
use crate::files;

#[derive(Serialize, Deserialize)]
struct Kept {
    secret: Vec<u8>,
}

/// The key.
pub struct ServiceKey(hmac::Key);

impl ServiceKey {
    /// Reads the key, or makes it.
    ///
    /// # Errors
    /// Where the file system or the source of randomness refuses.
    pub fn open(path: &Path) -> Result<Self, KeysError> {
        let kept = match files::read_json::<Kept>(path)? {
            Some(kept) => kept,
            None => {
                let kept = Kept {
                    secret: secrets::random()?.to_vec(),
                };
                files::write_json(path, &kept)?;
                kept
            }
        };
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &kept.secret)))
    }

    /// A digest of the parts, each told from the next.
    pub fn digest(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in std::iter::once(&purpose.as_bytes()).chain(parts) {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let tag = context.sign();
        tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_the_same_after_a_restart_and_differ_by_key_purpose_and_parts() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = |folder: &tempfile::TempDir| ServiceKey::open(&folder.path().join("key")).unwrap();
        let first = open(&folder).digest("tokens", &[b"ab", b"c"]);
        assert_eq!(open(&folder).digest("tokens", &[b"ab", b"c"]), first);
        assert_ne!(open(&folder).digest("tokens", &[b"a", b"bc"]), first);
        assert_ne!(open(&folder).digest("others", &[b"ab", b"c"]), first);
        assert_ne!(open(&other).digest("tokens", &[b"ab", b"c"]), first);
    }
}

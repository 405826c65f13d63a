//! Random secrets, and what is kept of them: a digest. They are long enough that guessing or a table is no way.

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};

/// Bytes of a secret.
const LEN: usize = 32;

/// The operating system gives no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random numbers")]
pub struct NoRandomness;

/// Random bytes.
///
/// # Errors
/// [`NoRandomness`].
pub fn random() -> Result<[u8; LEN], NoRandomness> {
    let mut bytes = [0; LEN];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// A new secret as text, after `prefix`, which tells people and scanners what it is.
///
/// # Errors
/// [`NoRandomness`].
pub fn new(prefix: &str) -> Result<String, NoRandomness> {
    Ok(format!("{prefix}{}", hex(&random()?)))
}

/// What is kept of a secret.
pub fn kept(secret: &str) -> [u8; LEN] {
    let digest = digest(&SHA256, secret.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_and_only_their_digests_are_kept() {
        let (one, other) = (new("ashlar_").unwrap(), new("ashlar_").unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), "ashlar_".len() + 2 * LEN);
        assert_eq!(kept(&one), kept(&one));
        assert_eq!(kept("abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}

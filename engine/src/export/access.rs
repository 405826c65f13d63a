//! Who may attach to an export: client addresses, encryption, client certificates.
//!
//! Invariant: a protocol asks [`Access::admits`] before it tells a visitor anything about an export but its refusal.

use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// All addresses that share the first `prefix` bits with `address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientRange {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no client range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientRangeError {
    #[error("`{0}` is not an IP address")]
    Address(String),
    #[error("`{0}` is not a prefix length for this kind of address")]
    Prefix(String),
}

impl ClientRange {
    pub fn contains(&self, client: IpAddr) -> bool {
        match (self.address, client.to_canonical()) {
            (IpAddr::V4(mine), IpAddr::V4(theirs)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                (mine.to_bits() ^ theirs.to_bits()) & mask == 0
            }
            (IpAddr::V6(mine), IpAddr::V6(theirs)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                (mine.to_bits() ^ theirs.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

impl FromStr for ClientRange {
    type Err = ClientRangeError;

    /// An address (`192.0.2.7`, `2001:db8::1`) or an address and a prefix length (`192.0.2.0/24`).
    fn from_str(text: &str) -> Result<Self, ClientRangeError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| ClientRangeError::Address(address.into()))?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(text) => match text.parse() {
                Ok(prefix) if prefix <= bits => prefix,
                _ => return Err(ClientRangeError::Prefix(text.into())),
            },
        };
        Ok(Self { address, prefix })
    }
}

impl std::fmt::Display for ClientRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// How well a connection is protected; also how well an export wants it, at least. The order of the variants is part of
/// the format of the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Protection {
    #[default]
    Plain,
    /// Encrypted, the server's certificate shown.
    Tls,
    /// Encrypted, and the client has shown a certificate of the server's client authority.
    TlsClientCertificate,
}

/// One client at one moment of its connection.
#[derive(Debug, Clone, Copy)]
pub struct Visitor {
    /// `None` on a Unix socket.
    pub address: Option<IpAddr>,
    pub protection: Protection,
}

/// Why a visitor may not attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no such export")]
    Unknown,
    #[error("this client may not use the export")]
    Policy,
    #[error("the export is served over TLS only")]
    NeedsTls,
}

/// An export's rules of admission.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Addresses that may attach; empty for all. Clients on a Unix socket are let in by its file's permissions and
    /// not by this list.
    pub clients: Vec<ClientRange>,
    pub protection: Protection,
    pub read_only: bool,
}

impl Access {
    /// # Errors
    /// Why not.
    pub fn admits(&self, visitor: &Visitor) -> Result<(), Refusal> {
        let listed =
            |address| self.clients.is_empty() || self.clients.iter().any(|range| range.contains(address));
        if !visitor.address.is_none_or(listed) {
            return Err(Refusal::Policy);
        }
        match visitor.protection {
            Protection::Plain if self.protection > Protection::Plain => Err(Refusal::NeedsTls),
            protection if protection < self.protection => Err(Refusal::Policy),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visitor(address: &str, protection: Protection) -> Visitor {
        Visitor {
            address: Some(address.parse().unwrap()),
            protection,
        }
    }

    #[test]
    fn a_range_holds_the_addresses_that_share_its_prefix() {
        let cases = [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("192.0.2.7", "::ffff:192.0.2.7", true),
            ("2001:db8::/32", "2001:db8:1::5", true),
            ("2001:db8::/32", "2001:db9::5", false),
            ("::/0", "2001:db8::1", true),
        ];
        for (range, address, held) in cases {
            let range: ClientRange = range.parse().unwrap();
            assert_eq!(
                range.contains(address.parse().unwrap()),
                held,
                "{range} {address}"
            );
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        assert_eq!(
            "host".parse::<ClientRange>(),
            Err(ClientRangeError::Address("host".into()))
        );
        assert_eq!(
            "192.0.2.0/33".parse::<ClientRange>(),
            Err(ClientRangeError::Prefix("33".into()))
        );
        assert_eq!(
            "192.0.2.0/-1".parse::<ClientRange>(),
            Err(ClientRangeError::Prefix("-1".into()))
        );
    }

    #[test]
    fn an_unlisted_client_learns_nothing_about_tls() {
        let access = Access {
            clients: vec!["192.0.2.0/24".parse().unwrap()],
            protection: Protection::Tls,
            read_only: false,
        };
        assert_eq!(
            access.admits(&visitor("203.0.113.1", Protection::Plain)),
            Err(Refusal::Policy)
        );
        assert_eq!(
            access.admits(&visitor("192.0.2.1", Protection::Plain)),
            Err(Refusal::NeedsTls)
        );
        assert_eq!(access.admits(&visitor("192.0.2.1", Protection::Tls)), Ok(()));
    }

    #[test]
    fn encryption_alone_does_not_replace_a_certificate() {
        let access = Access {
            protection: Protection::TlsClientCertificate,
            ..Access::default()
        };
        assert_eq!(
            access.admits(&visitor("192.0.2.1", Protection::Tls)),
            Err(Refusal::Policy)
        );
        assert_eq!(
            access.admits(&visitor("192.0.2.1", Protection::TlsClientCertificate)),
            Ok(())
        );
    }
}

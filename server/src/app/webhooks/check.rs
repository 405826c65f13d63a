//! What a webhook may be told of, and where it may lie.
//!
//! Whoever manages webhooks has the appliance send requests into its network. Addresses that only ever belong to the
//! machine's surroundings are refused: link-local ones, where clouds tell secrets of a machine, and unspecified ones,
//! which are another spelling of "here". Loopback is allowed: backup software often runs on the appliance itself, and
//! what listens there has to mind its callers anyway.

use std::net::IpAddr;

use ashlar_openapi::{Problem, ProblemType};
use url::{Host, Url};

use crate::app::events::kinds;

/// Longest URL, and most kinds: as the contract says.
const LONGEST_URL: usize = 2048;
const MOST_KINDS: usize = 64;

/// Whether requests may go there.
pub fn is_allowed(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            !(address.is_link_local()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_broadcast())
        }
        IpAddr::V6(address) => {
            !(address.is_unicast_link_local() || address.is_unspecified() || address.is_multicast())
        }
    }
}

/// The address that a URL names, where it names one and no host.
pub fn address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}

fn invalid(cause: impl Into<String>, correction: &str, pointer: &str) -> Problem {
    Problem::new(ProblemType::InvalidValue, cause, correction).at(pointer)
}

/// Where deliveries go, written as it is kept: other spellings of a scheme or a host are the same place.
///
/// # Errors
/// Why not.
pub fn url(text: &str) -> Result<String, Problem> {
    let refuse = |cause: &str, correction: &str| Err(invalid(cause, correction, "/url"));
    if text.len() > LONGEST_URL {
        return refuse("the URL is too long", "give at most 2048 characters");
    }
    let Ok(url) = Url::parse(text) else {
        return refuse("it is no URL", "give `https://host/path` or `http://host/path`");
    };
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return refuse(
            "deliveries go over HTTP",
            "give `https://host/path` or `http://host/path`",
        );
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse(
            "the URL has a user or a password, which everybody could read here",
            "leave it out: deliveries are signed",
        );
    }
    if url.as_str().len() > LONGEST_URL {
        return refuse("the URL is too long", "give at most 2048 characters, as sent");
    }
    if url.fragment().is_some() {
        return refuse("a fragment is not sent", "leave out what follows `#`");
    }
    match address(&url) {
        Some(address) if !is_allowed(address) => refuse(
            "nothing is sent to link-local, unspecified or group addresses",
            "give an address that belongs to a receiver",
        ),
        _ => Ok(url.into()),
    }
}

/// Whether there are such events.
///
/// # Errors
/// Which of them there are not.
pub fn kinds(wanted: &[String]) -> Result<(), Problem> {
    if wanted.len() > MOST_KINDS {
        return Err(invalid("these are too many kinds", "give at most 64", "/kinds"));
    }
    for (index, kind) in wanted.iter().enumerate() {
        if !kinds::is_known(kind) {
            let cause = format!("there are no events of kind {kind:?}");
            let correction = "give one of these, or a beginning of them that ends in a dot";
            return Err(invalid(cause, correction, &format!("/kinds/{index}")).allowing(kinds::KINDS));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_kept_in_its_usual_spelling() {
        assert_eq!(
            url("HTTPS://Receiver.Example").as_deref(),
            Ok("https://receiver.example/")
        );
    }

    #[test]
    fn deliveries_go_to_hosts_and_not_into_the_machines_surroundings() {
        for good in [
            "https://receiver.example/hook?x=1",
            "http://127.0.0.1:9000/",
            "http://[::1]/",
            "http://10.0.0.1/",
            "http://[fd00::1]/",
        ] {
            assert_eq!(url(good).as_deref(), Ok(good));
        }
        for wrong in [
            "",
            "receiver.example",
            "ftp://receiver.example/",
            "http://169.254.169.254/latest/meta-data",
            "http://[fe80::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://0.0.0.0/",
            "http://[::]/",
            "http://0/",
            "http://2852039166/",
            "http://224.0.0.1/",
            "https://anna:geheim@receiver.example/",
            "https://receiver.example/#x",
        ] {
            let refused = url(wrong).unwrap_err();
            assert_eq!(
                (refused.kind, refused.pointer.as_deref()),
                (ProblemType::InvalidValue, Some("/url")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_kind_or_the_beginning_of_some_is_named_and_a_slip_of_the_pen_is_told() {
        let check = |kind: &str| kinds(&["volume.created".into(), kind.into()]);
        for good in ["job.failed", "volume.", "raid_group."] {
            assert!(check(good).is_ok(), "{good}");
        }
        for wrong in ["", ".", "volume", "volume.craeted", "vol."] {
            assert_eq!(
                check(wrong).unwrap_err().pointer.as_deref(),
                Some("/kinds/1"),
                "{wrong}"
            );
        }
    }
}

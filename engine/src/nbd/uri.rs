//! Where an export is, as people write it: `nbd://host:port/name`, `nbds+unix:///name?socket=/path`.
//!
//! Invariant: what parses can be connected to as it stands, so a URI with a part that this client would have to
//! ignore (a user name, an unknown parameter) is refused. Showing a URI and parsing it again gives the same one.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::str::FromStr;

use super::wire::MAX_STRING;

/// The port where a URI names none.
pub const DEFAULT_PORT: u16 = 10809;

/// How the server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host name or an IP address (IPv6 without brackets).
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

/// One export of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NbdUri {
    pub address: Address,
    /// May be empty: the server's default export.
    pub export: String,
    /// TLS is used, and required of the server; without it none is tried.
    pub tls: bool,
    /// Folder with `ca-cert.pem` and, for a client certificate, `client-cert.pem` and `client-key.pem`.
    pub tls_certificates: Option<PathBuf>,
    /// Name that the server's certificate must carry, where it is not the host's.
    pub tls_hostname: Option<String>,
}

/// Why a text is not the URI of an export that can be connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    #[error("scheme {0:?} is not one of nbd://, nbds://, nbd+unix://, nbds+unix://")]
    Scheme(String),
    #[error(
        "user names in a URI are not supported: identify this client by a certificate (tls-certificates=FOLDER)"
    )]
    UserName,
    #[error("port {0:?} is not a number from 1 to 65535")]
    Port(String),
    #[error("host {0:?} is malformed: give a host name, an IPv4 address, or an IPv6 address in brackets")]
    Host(String),
    #[error("a Unix socket is reached as nbd+unix:///NAME?socket=PATH; {0}")]
    Socket(&'static str),
    #[error("parameter {0:?} is unknown: socket, tls-certificates and tls-hostname are understood")]
    Parameter(String),
    #[error("parameter {0:?} is given twice")]
    Repeated(String),
    #[error("parameter {0:?} needs a value")]
    NoValue(String),
    #[error("parameter {0:?} needs a URI that begins with nbds")]
    NotTls(String),
    #[error("{0:?} has a % that two hexadecimal digits do not follow (% itself is written %25)")]
    Percent(String),
    #[error("{0} is not UTF-8 without NUL bytes")]
    Text(&'static str),
    #[error("the export's name has {0} bytes; {MAX_STRING} are allowed")]
    LongName(usize),
    #[error("a URI of an export has no #fragment (# in a name is written %23)")]
    Fragment,
}

impl FromStr for NbdUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        if text.contains('#') {
            return Err(UriError::Fragment);
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| {
            UriError::Scheme(text.chars().take_while(|c| !matches!(c, ':' | '/')).collect())
        })?;
        let (unix, tls) = match scheme.to_ascii_lowercase().as_str() {
            "nbd" => (false, false),
            "nbds" => (false, true),
            "nbd+unix" => (true, false),
            "nbds+unix" => (true, true),
            _ => return Err(UriError::Scheme(scheme.into())),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let export = text_of(path, "the export's name")?;
        if export.len() > MAX_STRING {
            return Err(UriError::LongName(export.len()));
        }
        let parameters = Parameters::parse(query)?;
        if !tls && let Some(name) = parameters.first_of_tls() {
            return Err(UriError::NotTls(name.into()));
        }
        let address = address(unix, authority, parameters.socket)?;
        Ok(Self {
            address,
            export,
            tls,
            tls_certificates: parameters.tls_certificates,
            tls_hostname: parameters.tls_hostname,
        })
    }
}

fn address(unix: bool, authority: &str, socket: Option<PathBuf>) -> Result<Address, UriError> {
    if authority.contains('@') {
        return Err(UriError::UserName);
    }
    match (unix, socket) {
        (true, Some(_)) if !authority.is_empty() => Err(UriError::Socket("it has no host before the name")),
        (true, Some(path)) => Ok(Address::Unix(path)),
        (true, None) => Err(UriError::Socket("the parameter socket is missing")),
        (false, Some(_)) => Err(UriError::Socket(
            "with nbd:// or nbds:// there is no parameter socket",
        )),
        (false, None) => tcp_address(authority),
    }
}

fn tcp_address(authority: &str) -> Result<Address, UriError> {
    let malformed = || UriError::Host(authority.into());
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or_else(malformed)?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| malformed())?;
        let port = match port.strip_prefix(':') {
            None if !port.is_empty() => return Err(malformed()),
            port => port.unwrap_or(""),
        };
        (host.to_owned(), port)
    } else {
        let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
        let host = text_of(host, "the host")?;
        let is_of_names = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
        if !host.chars().all(is_of_names) || port.contains(':') {
            return Err(malformed());
        }
        (host, port)
    };
    let host = if host.is_empty() { "localhost".into() } else { host };
    let port = match port {
        "" => DEFAULT_PORT,
        text => text
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| text.parse().ok().filter(|&port| port != 0))
            .flatten()
            .ok_or_else(|| UriError::Port(text.into()))?,
    };
    Ok(Address::Tcp { host, port })
}

#[derive(Default)]
struct Parameters {
    socket: Option<PathBuf>,
    tls_certificates: Option<PathBuf>,
    tls_hostname: Option<String>,
}

impl Parameters {
    fn parse(query: &str) -> Result<Self, UriError> {
        let mut all = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if value.is_empty() {
                return Err(UriError::NoValue(name.into()));
            }
            let repeated = match name {
                "socket" => all.socket.replace(path_of(value)?).is_some(),
                "tls-certificates" => all.tls_certificates.replace(path_of(value)?).is_some(),
                "tls-hostname" => all
                    .tls_hostname
                    .replace(text_of(value, "the parameter tls-hostname")?)
                    .is_some(),
                _ => return Err(UriError::Parameter(name.into())),
            };
            if repeated {
                return Err(UriError::Repeated(name.into()));
            }
        }
        Ok(all)
    }

    fn first_of_tls(&self) -> Option<&'static str> {
        let certificates = self.tls_certificates.is_some().then_some("tls-certificates");
        certificates.or(self.tls_hostname.is_some().then_some("tls-hostname"))
    }
}

fn path_of(encoded: &str) -> Result<PathBuf, UriError> {
    let bytes = decode(encoded)?;
    if bytes.contains(&0) {
        return Err(UriError::Text("a path"));
    }
    Ok(OsString::from_vec(bytes).into())
}

fn text_of(encoded: &str, what: &'static str) -> Result<String, UriError> {
    let text = String::from_utf8(decode(encoded)?).map_err(|_| UriError::Text(what))?;
    if text.contains('\0') {
        Err(UriError::Text(what))
    } else {
        Ok(text)
    }
}

fn decode(encoded: &str) -> Result<Vec<u8>, UriError> {
    let malformed = || UriError::Percent(encoded.into());
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit().ok_or_else(malformed)?, digit().ok_or_else(malformed)?);
        bytes.push(u8::try_from(high << 4 | low).expect("two hexadecimal digits make a byte"));
    }
    Ok(bytes)
}

/// Bytes as a part of a URI: all but unreserved characters and `/` are percent-encoded.
struct Encoded<'a>(&'a [u8]);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0 {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                    write!(f, "{}", char::from(byte))?;
                }
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for NbdUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "nbds" } else { "nbd" };
        let export = Encoded(self.export.as_bytes());
        let mut parameters: Vec<(&str, &[u8])> = Vec::new();
        match &self.address {
            Address::Tcp { host, port } if host.contains(':') => {
                write!(f, "{scheme}://[{host}]:{port}/{export}")?;
            }
            Address::Tcp { host, port } => {
                write!(f, "{scheme}://{}:{port}/{export}", Encoded(host.as_bytes()))?;
            }
            Address::Unix(path) => {
                write!(f, "{scheme}+unix:///{export}")?;
                parameters.push(("socket", path.as_os_str().as_bytes()));
            }
        }
        if let Some(folder) = &self.tls_certificates {
            parameters.push(("tls-certificates", folder.as_os_str().as_bytes()));
        }
        if let Some(name) = &self.tls_hostname {
            parameters.push(("tls-hostname", name.as_bytes()));
        }
        for (position, (name, value)) in parameters.into_iter().enumerate() {
            let mark = if position == 0 { '?' } else { '&' };
            write!(f, "{mark}{name}={}", Encoded(value))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<NbdUri, UriError> {
        text.parse()
    }

    fn tcp(host: &str, port: u16, export: &str) -> NbdUri {
        NbdUri {
            address: Address::Tcp {
                host: host.into(),
                port,
            },
            export: export.into(),
            tls: false,
            tls_certificates: None,
            tls_hostname: None,
        }
    }

    #[test]
    fn the_examples_of_the_uri_specification_mean_what_it_says() {
        assert_eq!(
            parse("nbd://example.com/disk"),
            Ok(tcp("example.com", 10809, "disk"))
        );
        assert_eq!(parse("nbd://example.com"), Ok(tcp("example.com", 10809, "")));
        assert_eq!(
            parse("nbd://example.com//disk"),
            Ok(tcp("example.com", 10809, "/disk"))
        );
        assert_eq!(
            parse("nbd://example.com/hello%20world"),
            Ok(tcp("example.com", 10809, "hello world"))
        );
        assert_eq!(parse("NBD://[::1]:99/x"), Ok(tcp("::1", 99, "x")));
        let unix =
            parse("nbds+unix:///disk?socket=/run/a%26b&tls-hostname=h&tls-certificates=/etc/pki").unwrap();
        assert_eq!(unix.address, Address::Unix("/run/a&b".into()));
        assert_eq!((unix.export.as_str(), unix.tls), ("disk", true));
        assert_eq!(unix.tls_hostname.as_deref(), Some("h"));
        assert_eq!(unix.tls_certificates, Some("/etc/pki".into()));
    }

    #[test]
    fn every_mistake_is_told_by_its_own_error() {
        let refused = |text: &str| parse(text).unwrap_err();
        assert_eq!(refused("http://h/x"), UriError::Scheme("http".into()));
        assert_eq!(refused("/dev/sda"), UriError::Scheme(String::new()));
        assert_eq!(refused("nbd+vsock:///"), UriError::Scheme("nbd+vsock".into()));
        assert_eq!(refused("nbd://me@h/"), UriError::UserName);
        assert_eq!(refused("nbd://h:0/"), UriError::Port("0".into()));
        assert_eq!(refused("nbd://h:65536/"), UriError::Port("65536".into()));
        assert_eq!(refused("nbd://::1/"), UriError::Host("::1".into()));
        assert_eq!(refused("nbd://a%2Fb/"), UriError::Host("a%2Fb".into()));
        assert_eq!(refused("nbd://[::1]x/"), UriError::Host("[::1]x".into()));
        assert!(matches!(refused("nbd+unix:///x"), UriError::Socket(_)));
        assert!(matches!(refused("nbd+unix://h/x?socket=/s"), UriError::Socket(_)));
        assert!(matches!(refused("nbd://h/x?socket=/s"), UriError::Socket(_)));
        assert_eq!(
            refused("nbd://h/?sokcet=/s"),
            UriError::Parameter("sokcet".into())
        );
        assert_eq!(
            refused("nbd+unix:///?socket=/s&socket=/t"),
            UriError::Repeated("socket".into())
        );
        assert_eq!(
            refused("nbd+unix:///?socket="),
            UriError::NoValue("socket".into())
        );
        assert_eq!(
            refused("nbd://h/?tls-hostname=x"),
            UriError::NotTls("tls-hostname".into())
        );
        assert_eq!(refused("nbd://h/100%"), UriError::Percent("100%".into()));
        assert_eq!(refused("nbd://h/%ff"), UriError::Text("the export's name"));
        assert_eq!(refused("nbd://h/%00"), UriError::Text("the export's name"));
        assert_eq!(refused("nbd://h/a#b"), UriError::Fragment);
        assert_eq!(
            refused(&format!("nbd://h/{}", "x".repeat(4097))),
            UriError::LongName(4097)
        );
    }

    fn any_uri() -> impl Strategy<Value = NbdUri> {
        let path =
            || prop::collection::vec(1u8.., 1..20).prop_map(|bytes| PathBuf::from(OsString::from_vec(bytes)));
        let address = prop_oneof![
            ("[-._\\pL\\pN]{1,20}|(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}", 1u16..)
                .prop_map(|(host, port)| Address::Tcp { host, port }),
            path().prop_map(Address::Unix),
        ];
        let tls = prop::option::of((prop::option::of(path()), prop::option::of("[^\\x00]{1,20}")));
        (address, "[^\\x00]{0,40}", tls).prop_map(|(address, export, tls)| {
            let (tls_certificates, tls_hostname) = tls.clone().unwrap_or_default();
            NbdUri {
                address,
                export,
                tls: tls.is_some(),
                tls_certificates,
                tls_hostname,
            }
        })
    }

    proptest! {
        #[test]
        fn a_uri_that_is_shown_parses_to_itself(uri in any_uri()) {
            prop_assert_eq!(parse(&uri.to_string()), Ok(uri));
        }

        #[test]
        fn any_text_parses_or_is_refused_and_what_parses_can_be_shown(
            text in "(nbds?(\\+unix)?://)?[a-z0-9:/?&=%@#\\[\\].-]{0,40}|\\PC{0,40}",
        ) {
            if let Ok(uri) = parse(&text) {
                prop_assert_eq!(parse(&uri.to_string()), Ok(uri));
            }
        }
    }
}

//! `host:port` as people write it: `5432`, `localhost:5432`, `[::1]:5432`, `tcp://db.internal:5432` (05 §1.1).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest host name, in bytes (RFC 1035).
const MAX_HOST: usize = 253;

/// A host and a port. The host is a name or an address; it is not looked up here.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    host: String,
    port: u16,
    scheme: Scheme,
}

/// What stands before `://`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Nothing, or `tcp`.
    #[default]
    Tcp,
    /// `udp`.
    Udp,
    /// `tls`.
    Tls,
}

/// Why a text is not a `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostPortError {
    /// No port at all.
    #[error("the port is missing: write host:port, or only a port for 127.0.0.1")]
    MissingPort,
    /// Not a number from 0 to 65535.
    #[error("`{0}` is not a port: a number from 0 to 65535 is needed")]
    Port(String),
    /// Not a host name or address.
    #[error("`{0}` is not a host name or IP address")]
    Host(String),
    /// An IPv6 address without brackets.
    #[error("`{0}` looks like an IPv6 address: write it in brackets, [::1]:5432")]
    Brackets(String),
    /// Unknown scheme.
    #[error("`{0}://` is not understood: tcp, udp and tls are")]
    Scheme(String),
}

impl HostPort {
    /// A host and a port that are known to be well-formed.
    pub fn new(host: impl fmt::Display, port: u16) -> Result<Self, HostPortError> {
        let host = host.to_string();
        Ok(Self {
            host: check_host(&host)?,
            port,
            scheme: Scheme::Tcp,
        })
    }

    /// Name or address, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 lets the system choose where that makes sense.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What stood before `://`.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host as an address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

fn check_host(host: &str) -> Result<String, HostPortError> {
    let bad = || HostPortError::Host(host.chars().take(80).collect());
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner
            .parse::<Ipv6Addr>()
            .map(|ip| ip.to_string())
            .map_err(|_| bad());
    }
    if host.parse::<Ipv4Addr>().is_ok() || host.parse::<Ipv6Addr>().is_ok() {
        return Ok(host.to_owned());
    }
    let label_fits = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    // A name of digits and dots only is a mistyped address (RFC 1123 §2.1).
    let numeric = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if name.len() > MAX_HOST || numeric || !name.split('.').all(label_fits) {
        return Err(bad());
    }
    Ok(host.to_owned())
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        let text = text.trim();
        let (scheme, rest) = match text.split_once("://") {
            None => (Scheme::Tcp, text),
            Some(("tcp", rest)) => (Scheme::Tcp, rest),
            Some(("udp", rest)) => (Scheme::Udp, rest),
            Some(("tls", rest)) => (Scheme::Tls, rest),
            Some((other, _)) => return Err(HostPortError::Scheme(other.chars().take(80).collect())),
        };
        let (host, port) = match rest.rsplit_once(':') {
            None => ("127.0.0.1", rest),
            Some((host, _)) if host.contains(':') && !host.starts_with('[') => {
                return Err(HostPortError::Brackets(rest.chars().take(80).collect()));
            }
            Some((_, port)) if port.ends_with(']') => return Err(HostPortError::MissingPort),
            Some(("", port)) => ("127.0.0.1", port),
            Some((host, port)) => (host, port),
        };
        if port.is_empty() || (host == "127.0.0.1" && !port.starts_with(|c: char| c.is_ascii_digit())) {
            // `localhost` alone: a host, not a port.
            return Err(if check_host(port).is_ok() || port.is_empty() {
                HostPortError::MissingPort
            } else {
                HostPortError::Port(port.chars().take(80).collect())
            });
        }
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(HostPortError::Port(port.chars().take(80).collect()));
        }
        let port = port
            .parse()
            .map_err(|_| HostPortError::Port(port.chars().take(80).collect()))?;
        Ok(Self {
            host: check_host(host)?,
            port,
            scheme,
        })
    }
}

/// `host:port`, an IPv6 address in brackets, no scheme.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl TryFrom<String> for HostPort {
    type Error = HostPortError;

    fn try_from(text: String) -> Result<Self, HostPortError> {
        text.parse()
    }
}

impl From<HostPort> for String {
    fn from(address: HostPort) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.parse::<HostPort>()
            .map_or_else(|error| error.to_string(), |address| address.to_string())
    }

    #[test]
    fn a_port_alone_means_this_machine() {
        assert_eq!(shown("5432"), "127.0.0.1:5432");
        assert_eq!(shown(":5432"), "127.0.0.1:5432");
    }

    #[test]
    fn names_addresses_and_schemes_are_taken() {
        assert_eq!(shown("localhost:5000"), "localhost:5000");
        assert_eq!(shown("0.0.0.0:15432"), "0.0.0.0:15432");
        assert_eq!(shown("[::1]:80"), "[::1]:80");
        assert_eq!(shown("tls://db.internal:5432"), "db.internal:5432");
        assert_eq!("tls://a:1".parse::<HostPort>().unwrap().scheme(), Scheme::Tls);
        assert_eq!(shown(" 127.0.0.1:27017\n"), "127.0.0.1:27017");
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(shown("localhost").contains("port is missing"));
        assert!(shown("localhost:").contains("port is missing"));
        assert!(shown("").contains("port is missing"));
        assert!(shown("[::1]").contains("port is missing"));
        assert!(shown("a:65536").contains("not a port"));
        assert!(shown("a:+1").contains("not a port"));
        assert!(shown("::1:80").contains("brackets"));
        assert!(shown("300.1.2.3:80").contains("not a host"));
        assert!(shown("a b:80").contains("not a host"));
        assert!(shown("http://a:80").contains("http://"));
        assert!(shown("-1").contains("not a port") || shown("-1").contains("missing"));
    }
}

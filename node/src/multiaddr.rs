//! Routes as people write them (04 part B): `/project/default/service/forward_to_db/secure/api/service/outlet`.
//!
//! A multi-address is a list of components, each a protocol name and a value. It says *how to get there*: connect to a
//! host, go to a worker, open a secure channel. What it means is decided by whoever resolves it; this module knows the
//! text form, the binary form and their limits.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::host_port::HostPort;

/// The longest text or binary form, in bytes. The reference has no limit; nothing sensible comes near this one.
pub const MAX_LENGTH: usize = 16 * 1024;
/// The most components of one address. Each may open a connection or a channel.
pub const MAX_COMPONENTS: usize = 128;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Component {
    /// `ip4`: an IPv4 host.
    Ip4(Ipv4Addr),
    /// `ip6`: an IPv6 host.
    Ip6(Ipv6Addr),
    /// `dnsaddr`: a host name, looked up in the ordinary way.
    DnsAddr(String),
    /// `tcp`: connect to this port of the host before it.
    Tcp(u16),
    /// `udp`: this port of the host before it.
    Udp(u16),
    /// `service`: a worker.
    Service(String),
    /// `worker`: a worker.
    Worker(String),
    /// `secure`: open a secure channel to this listener, reached through what is before it.
    Secure(String),
    /// `node`: a node of this home, by name.
    Node(String),
    /// `project`: a project of this home, by name.
    Project(String),
    /// `space`: known to the format, resolved by nobody.
    Space(String),
}

/// Protocol names and their codes in the binary form.
const PROTOCOLS: [(&str, u32); 11] = [
    ("ip4", 4),
    ("tcp", 6),
    ("ip6", 41),
    ("dnsaddr", 56),
    ("udp", 273),
    ("service", 62526),
    ("node", 72526),
    ("project", 82526),
    ("space", 92526),
    ("secure", 99526),
    ("worker", 102526),
];

/// What is wrong with a text or with bytes, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at position {position}: {kind}")]
pub struct MultiAddrError {
    /// Byte offset of the component at fault, from 0.
    pub position: usize,
    /// What is wrong.
    pub kind: MultiAddrErrorKind,
}

/// What is wrong with an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MultiAddrErrorKind {
    /// `//`, a trailing `/`, or `/` alone.
    #[error("a protocol name is missing (a double or trailing `/`)")]
    EmptyProtocol,
    /// Not one of the known names.
    #[error("`{found}` is not a protocol{}", suggestion(.found))]
    UnknownProtocol {
        /// As written.
        found: String,
    },
    /// The value does not fit the protocol.
    #[error("`{value}` is not {expected}")]
    Value {
        /// As written.
        value: String,
        /// "a port from 0 to 65535", …
        expected: &'static str,
    },
    /// Beyond [`MAX_LENGTH`].
    #[error("the address is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// Beyond [`MAX_COMPONENTS`].
    #[error("the address has more than {MAX_COMPONENTS} components")]
    TooManyComponents,
    /// A binary form that ends inside a component.
    #[error("the bytes end inside a component")]
    Truncated,
    /// A protocol code that does not exist, or one in a longer form than needed.
    #[error("unknown or malformed protocol code")]
    Code,
    /// A text value that is not UTF-8.
    #[error("a value is not UTF-8")]
    Utf8,
}

fn suggestion(found: &str) -> String {
    let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
    match found {
        "dns" | "dns4" | "dns6" => "; for a host name write `dnsaddr`".to_owned(),
        "ip" => "; write `ip4` or `ip6`".to_owned(),
        _ => format!("; known are {}", names.join(", ")),
    }
}

/// A list of steps. Decoded values are within the limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MultiAddr {
    components: Vec<Component>,
}

impl MultiAddr {
    /// The components, first step first.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// Whether there is no step at all.
    pub fn is_empty(&self) -> bool {
        self.components.is_empty()
    }

    /// An address of these steps.
    ///
    /// # Errors
    ///
    /// When there are more than [`MAX_COMPONENTS`].
    pub fn from_components(components: Vec<Component>) -> Result<Self, MultiAddrError> {
        if components.len() > MAX_COMPONENTS {
            return Err(MultiAddrError {
                position: 0,
                kind: MultiAddrErrorKind::TooManyComponents,
            });
        }
        Ok(Self { components })
    }

    /// The binary form (04 B3): for each component, its code as a varint and its value.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for component in &self.components {
            put_varint(&mut out, component.code());
            match component {
                Component::Ip4(ip) => out.extend_from_slice(&ip.octets()),
                Component::Ip6(ip) => out.extend_from_slice(&ip.octets()),
                Component::Tcp(port) | Component::Udp(port) => out.extend_from_slice(&port.to_be_bytes()),
                Component::DnsAddr(text)
                | Component::Service(text)
                | Component::Worker(text)
                | Component::Secure(text)
                | Component::Node(text)
                | Component::Project(text)
                | Component::Space(text) => {
                    // Values are bounded by MAX_LENGTH, far below u32.
                    put_varint(&mut out, u32::try_from(text.len()).unwrap_or(u32::MAX));
                    out.extend_from_slice(text.as_bytes());
                }
            }
        }
        out
    }

    /// Read the binary form.
    ///
    /// # Errors
    ///
    /// Unknown codes, short values, invalid UTF-8, varints that are not minimal, and the limits of this module.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MultiAddrError> {
        let fail = |position, kind| Err(MultiAddrError { position, kind });
        if bytes.len() > MAX_LENGTH {
            return fail(0, MultiAddrErrorKind::TooLong);
        }
        let mut components = Vec::new();
        let mut reader = Reader { bytes, at: 0 };
        while reader.at < bytes.len() {
            let start = reader.at;
            if components.len() == MAX_COMPONENTS {
                return fail(start, MultiAddrErrorKind::TooManyComponents);
            }
            let component = reader.component().map_err(|kind| MultiAddrError {
                position: start,
                kind,
            })?;
            components.push(component);
        }
        Ok(Self { components })
    }

    /// Read a route that a user typed: as [`FromStr`], but white space around it is ignored, and control characters and
    /// `#` in names are refused, because `#` separates transport type and address in a worker's address (03 §2.4).
    pub fn from_argument(text: &str) -> Result<Self> {
        let text = text.trim();
        let address: MultiAddr = text.parse().map_err(|error: MultiAddrError| {
            Error::invalid(format!("`{}` is not a route: {error}", shorten(text)))
        })?;
        for component in address.components() {
            let name = component.to_string();
            if name.contains('#') || name.chars().any(char::is_control) {
                return Err(Error::invalid(format!(
                    "the route component `{}` contains `#` or a control character",
                    shorten(&name.escape_debug().to_string())
                )));
            }
        }
        Ok(address)
    }

    /// The value of the first `/project/…` component.
    pub fn project(&self) -> Option<&str> {
        self.components.iter().find_map(|component| match component {
            Component::Project(name) => Some(name.as_str()),
            _ => None,
        })
    }
}

fn shorten(text: &str) -> String {
    if text.chars().count() > 100 {
        let start: String = text.chars().take(100).collect();
        format!("{start}…")
    } else {
        text.to_owned()
    }
}

/// The transport part of a route to `address` (`host:port`): `/ip4/127.0.0.1/tcp/4000` or `/dnsaddr/host/tcp/4000`.
pub fn transport_route(address: &str) -> Result<String> {
    let address: HostPort = address
        .parse()
        .map_err(|error| Error::invalid(format!("`{}`: {error}", shorten(address))))?;
    Ok(transport_of(&address).to_string())
}

/// The transport part of a route to `address`.
pub fn transport_of(address: &HostPort) -> MultiAddr {
    let host = match address.ip() {
        Some(std::net::IpAddr::V4(ip)) => Component::Ip4(ip),
        Some(std::net::IpAddr::V6(ip)) => Component::Ip6(ip),
        None => Component::DnsAddr(address.host().to_owned()),
    };
    MultiAddr {
        components: vec![host, Component::Tcp(address.port())],
    }
}

impl Component {
    /// The protocol's name.
    pub fn protocol(&self) -> &'static str {
        match self {
            Component::Ip4(_) => "ip4",
            Component::Ip6(_) => "ip6",
            Component::DnsAddr(_) => "dnsaddr",
            Component::Tcp(_) => "tcp",
            Component::Udp(_) => "udp",
            Component::Service(_) => "service",
            Component::Worker(_) => "worker",
            Component::Secure(_) => "secure",
            Component::Node(_) => "node",
            Component::Project(_) => "project",
            Component::Space(_) => "space",
        }
    }

    fn code(&self) -> u32 {
        let name = self.protocol();
        PROTOCOLS
            .iter()
            .find(|(candidate, _)| *candidate == name)
            .map_or(0, |(_, code)| *code)
    }

    fn with_text(protocol: &str, value: String) -> Option<Self> {
        Some(match protocol {
            "dnsaddr" => Component::DnsAddr(value),
            "service" => Component::Service(value),
            "worker" => Component::Worker(value),
            "secure" => Component::Secure(value),
            "node" => Component::Node(value),
            "project" => Component::Project(value),
            "space" => Component::Space(value),
            _ => return None,
        })
    }

    fn parse(protocol: &str, value: &str) -> Result<Self, MultiAddrErrorKind> {
        let wrong = |expected| MultiAddrErrorKind::Value {
            value: shorten(value),
            expected,
        };
        match protocol {
            "" => Err(MultiAddrErrorKind::EmptyProtocol),
            "ip4" => value
                .parse()
                .map(Component::Ip4)
                .map_err(|_| wrong("an IPv4 address")),
            "ip6" => value
                .parse()
                .map(Component::Ip6)
                .map_err(|_| wrong("an IPv6 address")),
            "tcp" => value
                .parse()
                .map(Component::Tcp)
                .map_err(|_| wrong("a port from 0 to 65535")),
            "udp" => value
                .parse()
                .map(Component::Udp)
                .map_err(|_| wrong("a port from 0 to 65535")),
            other => {
                Self::with_text(other, value.to_owned()).ok_or_else(|| MultiAddrErrorKind::UnknownProtocol {
                    found: shorten(other),
                })
            }
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.protocol())?;
        match self {
            Component::Ip4(ip) => write!(f, "{ip}"),
            Component::Ip6(ip) => write!(f, "{ip}"),
            Component::Tcp(port) | Component::Udp(port) => write!(f, "{port}"),
            Component::DnsAddr(text)
            | Component::Service(text)
            | Component::Worker(text)
            | Component::Secure(text)
            | Component::Node(text)
            | Component::Project(text)
            | Component::Space(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for MultiAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.components
            .iter()
            .try_for_each(|component| write!(f, "{component}"))
    }
}

impl FromStr for MultiAddr {
    type Err = MultiAddrError;

    fn from_str(text: &str) -> Result<Self, MultiAddrError> {
        if text.len() > MAX_LENGTH {
            return Err(MultiAddrError {
                position: 0,
                kind: MultiAddrErrorKind::TooLong,
            });
        }
        if text == "self" {
            return Ok(Self {
                components: vec![Component::Secure("api".to_owned())],
            });
        }
        let mut components = Vec::new();
        let mut rest = text.strip_prefix('/').unwrap_or(text);
        if text.is_empty() {
            return Ok(Self { components });
        }
        loop {
            let position = text.len() - rest.len();
            let fail = |kind| MultiAddrError { position, kind };
            if components.len() == MAX_COMPONENTS {
                return Err(fail(MultiAddrErrorKind::TooManyComponents));
            }
            let (protocol, after) = rest.split_once('/').unwrap_or((rest, ""));
            let (value, next) = match after.split_once('/') {
                Some((value, next)) => (value, Some(next)),
                None => (after, None),
            };
            components.push(Component::parse(protocol, value).map_err(fail)?);
            match next {
                Some(next) => rest = next,
                None => return Ok(Self { components }),
            }
        }
    }
}

impl TryFrom<String> for MultiAddr {
    type Error = MultiAddrError;

    fn try_from(text: String) -> Result<Self, MultiAddrError> {
        text.parse()
    }
}

impl From<MultiAddr> for String {
    fn from(address: MultiAddr) -> Self {
        address.to_string()
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn varint(&mut self) -> Result<u32, MultiAddrErrorKind> {
        let mut value: u64 = 0;
        for index in 0..5 {
            let byte = *self.bytes.get(self.at).ok_or(MultiAddrErrorKind::Truncated)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                // A last byte of zero is a longer form than needed.
                if byte == 0 && index > 0 {
                    return Err(MultiAddrErrorKind::Code);
                }
                return u32::try_from(value).map_err(|_| MultiAddrErrorKind::Code);
            }
        }
        Err(MultiAddrErrorKind::Code)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], MultiAddrErrorKind> {
        let slice = self
            .bytes
            .get(self.at..self.at + N)
            .ok_or(MultiAddrErrorKind::Truncated)?;
        self.at += N;
        slice.try_into().map_err(|_| MultiAddrErrorKind::Truncated)
    }

    fn text(&mut self) -> Result<String, MultiAddrErrorKind> {
        let length = self.varint()? as usize;
        let end = self.at.checked_add(length).ok_or(MultiAddrErrorKind::Truncated)?;
        let slice = self
            .bytes
            .get(self.at..end)
            .ok_or(MultiAddrErrorKind::Truncated)?;
        self.at = end;
        std::str::from_utf8(slice)
            .map(str::to_owned)
            .map_err(|_| MultiAddrErrorKind::Utf8)
    }

    fn component(&mut self) -> Result<Component, MultiAddrErrorKind> {
        let code = self.varint()?;
        let (name, _) = PROTOCOLS
            .iter()
            .find(|(_, candidate)| *candidate == code)
            .ok_or(MultiAddrErrorKind::Code)?;
        match *name {
            "ip4" => Ok(Component::Ip4(Ipv4Addr::from(self.take::<4>()?))),
            "ip6" => Ok(Component::Ip6(Ipv6Addr::from(self.take::<16>()?))),
            "tcp" => Ok(Component::Tcp(u16::from_be_bytes(self.take()?))),
            "udp" => Ok(Component::Udp(u16::from_be_bytes(self.take()?))),
            text => Component::with_text(text, self.text()?).ok_or(MultiAddrErrorKind::Code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> MultiAddr {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_examples_of_the_specification_have_their_bytes() {
        for (text, bytes) in [
            (
                "/ip4/127.0.0.1/tcp/4000/service/api",
                "047f000001060fa0bee80303617069",
            ),
            ("/dnsaddr/localhost/tcp/80", "38096c6f63616c686f7374060050"),
            ("/ip4/10.0.0.1/udp/4000", "040a00000191020fa0"),
            (
                "/project/default/service/forward_to_blue/secure/api/service/outlet",
                "de84050764656661756c74bee8030f666f72776172645f746f5f626c7565c6890603617069bee803066f75746c6574",
            ),
        ] {
            let address = parse(text);
            assert_eq!(hex::encode(address.to_bytes()), bytes);
            assert_eq!(MultiAddr::from_bytes(&address.to_bytes()).unwrap(), address);
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn text_is_read_as_the_specification_says() {
        assert_eq!(parse("self").to_string(), "/secure/api");
        assert!(parse("").is_empty());
        assert_eq!(parse("tcp/80").to_string(), "/tcp/80");
        assert_eq!(parse("/tcp/+80"), parse("/tcp/0080"));
        assert_eq!(parse("/service//tcp/80").components().len(), 2);
        assert_eq!(parse("/service"), parse("/service/"));
        assert_eq!(
            parse("/service/api\n").components(),
            [Component::Service("api\n".into())]
        );
        assert_eq!(parse("/ip6/0:0::1/tcp/1").to_string(), "/ip6/::1/tcp/1");
    }

    #[test]
    fn every_stated_error_is_one_and_says_where() {
        for (text, position) in [
            ("/", 1),
            ("//", 1),
            ("/service/a/", 11),
            ("/service/a//tcp/80", 11),
            ("/Service/a", 1),
            ("/dns4/a", 1),
            ("/ip4/01.2.3.4", 1),
            ("/ip6/[::1]", 1),
            ("/ip6/fe80::1%eth0", 1),
            ("/tcp/-1", 1),
            ("/tcp/ 1", 1),
            ("/tcp/", 1),
            ("/ip4/1.2.3.4/tcp/65536", 13),
            ("/self", 1),
            ("self/service/x", 0),
            ("/service/a/self", 11),
        ] {
            let error = text.parse::<MultiAddr>().expect_err(text);
            assert_eq!(error.position, position, "{text}: {error}");
        }
    }

    #[test]
    fn a_route_with_a_million_hops_is_refused() {
        let text = "/service/a".repeat(1_000_000);
        assert_eq!(
            text.parse::<MultiAddr>().unwrap_err().kind,
            MultiAddrErrorKind::TooLong
        );
        let text = "/service/a".repeat(MAX_COMPONENTS + 1);
        assert_eq!(
            text.parse::<MultiAddr>().unwrap_err().kind,
            MultiAddrErrorKind::TooManyComponents
        );
        let bytes = [0x06, 0, 80].repeat(MAX_COMPONENTS + 1);
        assert_eq!(
            MultiAddr::from_bytes(&bytes).unwrap_err().kind,
            MultiAddrErrorKind::TooManyComponents
        );
    }

    #[test]
    fn malformed_bytes_are_refused() {
        for bytes in [
            "04",
            "047f0000",
            "0600",
            "be e8 03 05 61",
            "07",
            "8600",
            "ffffffffff01",
            "be e8 03 01 ff",
        ] {
            let bytes = hex::decode(bytes.replace(' ', "")).unwrap();
            assert!(MultiAddr::from_bytes(&bytes).is_err(), "{bytes:02x?}");
        }
        let slash = MultiAddr::from_bytes(&hex::decode("bee803012f").unwrap()).unwrap();
        assert_eq!(slash.to_string(), "/service//");
    }

    #[test]
    fn a_name_with_a_number_sign_is_refused_from_a_user() {
        assert!(MultiAddr::from_argument("/service/forward_to_a#b").is_err());
        assert_eq!(
            MultiAddr::from_argument(" /service/api\n").unwrap(),
            parse("/service/api")
        );
    }

    #[test]
    fn transport_routes_tell_names_from_addresses() {
        assert_eq!(
            transport_route("127.0.0.1:4000").unwrap(),
            "/ip4/127.0.0.1/tcp/4000"
        );
        assert_eq!(transport_route("[::1]:4000").unwrap(), "/ip6/::1/tcp/4000");
        assert_eq!(
            transport_route("hub.example:4000").unwrap(),
            "/dnsaddr/hub.example/tcp/4000"
        );
    }
}

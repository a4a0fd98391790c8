//! Values of arguments: durations, node names, attributes, routes (05 §1.1).

use std::collections::BTreeMap;
use std::io::BufRead;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::host_port::HostPort;
use crate::multiaddr::MultiAddr;
use crate::state::{check_alias, check_node_name};

/// The longest duration that an argument can name: a hundred years.
const MAX_DURATION: u64 = 100 * 365 * 86_400;

/// `90`, `10m`, `1h30m`, `500ms`: whole numbers, each with a unit, larger units first; a number alone is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration: write `90`, `90s`, `10m`, `1h30m`, `500ms` or `2d`");
    let units: [(&str, u64); 5] = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let milliseconds = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse::<u64>()
            .ok()
            .and_then(|seconds| seconds.checked_mul(1000))
    } else {
        let (mut rest, mut total, mut largest) = (text, Some(0u64), u64::MAX);
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
            let (number, unit) = (&rest[..digits], &rest[digits..digits + letters]);
            rest = &rest[digits + letters..];
            let size = units
                .iter()
                .find(|(name, _)| *name == unit)
                .map(|(_, size)| *size)
                .ok_or_else(wrong)?;
            if number.is_empty() || size >= largest {
                return Err(wrong());
            }
            largest = size;
            let part = number
                .parse::<u64>()
                .ok()
                .and_then(|number| number.checked_mul(size));
            total = total.and_then(|total| total.checked_add(part?));
        }
        total
    };
    match milliseconds {
        Some(milliseconds) if milliseconds / 1000 <= MAX_DURATION => Ok(Duration::from_millis(milliseconds)),
        _ => Err(format!("`{text}` is longer than a hundred years")),
    }
}

/// `host:port`, or a port of this machine.
pub(crate) fn host_port(text: &str) -> Result<HostPort, String> {
    HostPort::from_str(text).map_err(|error| error.to_string())
}

/// `n1` or `/node/n1`.
pub(crate) fn node(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("/node/").unwrap_or(text);
    check_node_name(name).map_err(said)?;
    Ok(name.to_owned())
}

/// The name of a relay, inlet or outlet.
pub(crate) fn alias(text: &str) -> Result<String, String> {
    check_alias("relays and portals", text)?;
    Ok(text.to_owned())
}

/// The name of an outlet, or `/service/<name>`.
pub(crate) fn service(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("/service/").unwrap_or(text);
    check_alias("workers", name)?;
    Ok(name.to_owned())
}

/// The name of a plugin.
pub(crate) fn plain(text: &str) -> Result<String, String> {
    crate::state::check_plain_name("plugins", text)?;
    Ok(text.to_owned())
}

/// `I` and 64 hexadecimal digits, in lower case.
pub(crate) fn identifier(text: &str) -> Result<String, String> {
    text.trim()
        .parse::<portolan_identity::Identifier>()
        .map(|identifier| identifier.to_string())
        .map_err(|error| {
            format!(
                "`{}` is not an identifier (`I` and 64 hexadecimal digits): {error}",
                text.escape_debug()
            )
        })
}

/// One `--attribute`: `key` means `key=true`. The value may hold `=`.
pub(crate) fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, "true"));
    if name.is_empty() || name.trim() != name || name.chars().any(char::is_control) {
        return Err(format!("`{}` is not `key` or `key=value`", text.escape_debug()));
    }
    if matches!(name, "identifier" | "has_credential") {
        return Err(format!(
            "the attribute name `{name}` is reserved: policies use it for what the channel proves"
        ));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// A number that is at least 1.
pub(crate) fn at_least_one(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(0) | Err(_) => Err(format!("`{text}` is not a number from 1 up")),
        Ok(number) => Ok(number),
    }
}

fn said(error: Error) -> String {
    match error.hint {
        Some(hint) => format!("{}: {hint}", error.message),
        None => error.message,
    }
}

impl From<Error> for String {
    fn from(error: Error) -> Self {
        said(error)
    }
}

/// Several `--attribute` as a map.
///
/// # Errors
///
/// When one name has two values.
pub(crate) fn attributes(pairs: &[(String, String)]) -> Result<BTreeMap<String, String>> {
    let mut map = BTreeMap::new();
    for (name, value) in pairs {
        if let Some(other) = map.insert(name.clone(), value.clone())
            && other != *value
        {
            return Err(Error::invalid(format!(
                "the attribute `{name}` is given twice, as `{other}` and as `{value}`"
            )));
        }
    }
    Ok(map)
}

/// A route as typed. A segment that is only `-` is replaced by one line of stdin, so that
/// `secure-channel create … | tcp-inlet create --to -/service/outlet` works.
pub(crate) fn route(text: &str) -> Result<MultiAddr> {
    route_with(text, || {
        let mut line = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut line)
            .map_err(|error| Error::failed(format!("the route cannot be read from stdin: {error}")))?;
        Ok(line)
    })
}

fn route_with(text: &str, read: impl FnOnce() -> Result<String>) -> Result<MultiAddr> {
    let text = text.trim();
    if text == "-" || text.starts_with("-/") || text.ends_with("/-") || text.contains("/-/") {
        let line = read()?;
        let line = line.trim().trim_matches('/');
        if line.is_empty() {
            return Err(Error::invalid("stdin gave no address for the `-` in the route"));
        }
        let mut used = false;
        let segments: Vec<&str> = text
            .split('/')
            .map(|segment| {
                if segment == "-" && !std::mem::replace(&mut used, true) {
                    line
                } else {
                    segment
                }
            })
            .collect();
        return MultiAddr::from_argument(&segments.join("/"));
    }
    MultiAddr::from_argument(text)
}

/// Milliseconds, as the control interface counts.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A configuration of its own that a worker or an interceptor has: JSON or YAML.
pub(super) fn configuration(text: &str) -> Result<serde_json::Value, String> {
    super::config::document(text, "it").map_err(|error| error.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_numbers_with_units_larger_first() {
        for (text, milliseconds) in [
            ("0", 0),
            ("90", 90_000),
            ("500ms", 500),
            ("10m", 600_000),
            ("60m", 3_600_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("30d", 2_592_000_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in [
            "",
            "1.5h",
            "-1s",
            "1 h",
            "h",
            "1x",
            "30m1h",
            "1h1h",
            "1h30",
            "m10",
            "10M",
            "1e3",
            "99999999999999999999",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_node_is_a_name_or_a_route_to_it() {
        assert_eq!(node("n1").unwrap(), "n1");
        assert_eq!(node("/node/n1").unwrap(), "n1");
        assert!(node("/project/n1").is_err());
    }

    #[test]
    fn an_attribute_without_a_value_is_true() {
        assert_eq!(attribute("a").unwrap(), ("a".into(), "true".into()));
        assert_eq!(attribute("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        assert_eq!(attribute("a=").unwrap(), ("a".into(), String::new()));
        for text in ["", "=b", " a=b", "identifier=Ix", "has_credential"] {
            assert!(attribute(text).is_err(), "{text}");
        }
        let pair = |value: &str| ("a".to_owned(), value.to_owned());
        assert!(attributes(&[pair("1"), pair("1")]).is_ok());
        assert!(attributes(&[pair("1"), pair("2")]).is_err());
    }

    #[test]
    fn only_a_dash_that_is_a_whole_segment_reads_stdin() {
        let never = || panic!("stdin was read");
        assert_eq!(
            route_with("/service/a-b", never).unwrap().to_string(),
            "/service/a-b"
        );
        assert_eq!(
            route_with("/service/-x", never).unwrap().to_string(),
            "/service/-x"
        );
        let line = || Ok("/service/abc\n".to_owned());
        assert_eq!(
            route_with("-/service/outlet", line).unwrap().to_string(),
            "/service/abc/service/outlet"
        );
        assert_eq!(route_with("-", line).unwrap().to_string(), "/service/abc");
        assert_eq!(
            route_with("/project/p/-", line).unwrap().to_string(),
            "/project/p/service/abc"
        );
        assert!(route_with("-", || Ok("\n".into())).is_err());
    }
}

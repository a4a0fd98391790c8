//! The forms in which a ticket is read (specification 03 §3.2).

use serde::Deserialize;
use zeroize::Zeroizing;

use super::write::{EXTRA_MARK, checksum};
use super::{FIELDS, MAX_TICKET_LEN, Ticket, TicketError, id_in_line};
use crate::code::OneTimeCode;
use crate::project::{InvalidPart, Part, Project, ProjectRecord, check_identifier, verify_history};

/// The service that every known authority route ends in.
const LISTENER: &str = "api";

pub(super) fn parse(text: &str) -> Result<Ticket, TicketError> {
    if text.len() > MAX_TICKET_LEN {
        return Err(TicketError::TooLong);
    }
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    if text.is_empty() {
        return Err(TicketError::Empty);
    }
    if text.starts_with(|c: char| c.is_ascii_hexdigit()) {
        let plain = from_hex(text)?;
        return parse_plain(&plain, Further::OursOnly);
    }
    parse_plain(text, Further::Any)
}

/// What may follow the seven fields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Further {
    /// Our own field. In hex nobody else writes one, so that something else there is ours with a damaged mark.
    OursOnly,
    /// Anything: a stock reader ignores it, and so do we if it is not ours.
    Any,
}

/// Mail programs and terminals break long lines, so white space between the digits is skipped.
fn from_hex(text: &str) -> Result<Zeroizing<String>, TicketError> {
    let digits: Zeroizing<Vec<u8>> =
        Zeroizing::new(text.bytes().filter(|b| !b.is_ascii_whitespace()).collect());
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(TicketError::NotATicket);
    }
    let even = digits.len() & !1;
    let bytes = hex::decode(&digits[..even]).map_err(|_| TicketError::NotATicket)?;
    // A decoded multi-byte character that is cut in half is a truncated ticket, anything else that is not
    // text is no ticket.
    let text = String::from_utf8(bytes).map_err(|e| match e.utf8_error().error_len() {
        None => TicketError::Truncated("it ends in the middle of a character"),
        Some(_) => TicketError::NotATicket,
    })?;
    let text = Zeroizing::new(text);
    if !text.starts_with(['/', '{']) {
        return Err(TicketError::NotATicket);
    }
    if even != digits.len() {
        return Err(TicketError::Truncated(
            "it has an odd number of hexadecimal digits",
        ));
    }
    Ok(text)
}

fn parse_plain(text: &str, further: Further) -> Result<Ticket, TicketError> {
    // Hex of a text with a line end is a common accident of `echo`.
    let text = text.trim();
    match text.as_bytes().first() {
        Some(b'{') => parse_json(text),
        Some(b'/') => parse_line(text, further),
        _ => Err(TicketError::NotATicket),
    }
}

fn parse_line(line: &str, further: Further) -> Result<Ticket, TicketError> {
    let fields: Vec<&str> = line.split(',').collect();
    let &[
        route,
        identifier,
        name,
        code,
        project_history,
        authority_history,
        authority_route,
        ref extra @ ..,
    ] = &fields[..]
    else {
        // A path of a file that is not there comes here as well.
        return Err(if fields.len() > 1 || line.contains("/tcp/") {
            TicketError::Truncated("it has fewer than seven fields")
        } else {
            TicketError::NotATicket
        });
    };
    let expires_at = match extra {
        [] => {
            check_end(authority_route)?;
            None
        }
        [ours, ..] if is_start_of_ours(ours) => check_extra(line, ours, extra.len())?,
        _ if further == Further::OursOnly => return Err(TicketError::Damaged),
        _ => None,
    };
    let identity = verify_history(Part::ProjectHistory, project_history)?;
    check_identifier(identifier, &identity)?;
    let authority = verify_history(Part::AuthorityHistory, authority_history)?;
    let project = Project::new(
        id_in_line(route)?,
        name,
        route,
        identity,
        authority,
        authority_route,
    )?;
    Ok(Ticket::new(project, read_code(code)?, expires_at))
}

/// A line without checksum may have lost its end, and then its last route is not whole: a name without value,
/// nothing after the port, or `/service/ap`.
fn check_end(authority_route: &str) -> Result<(), TicketError> {
    const CUT: TicketError = TicketError::Truncated("the authority's route is not complete");
    let parts: Vec<&str> = authority_route.split('/').skip(1).collect();
    match parts.as_chunks::<2>() {
        ([.., [protocol, value]], []) if matches!(*protocol, "service" | "secure") => {
            if value.len() < LISTENER.len() && LISTENER.starts_with(value) {
                Err(CUT)
            } else {
                Ok(())
            }
        }
        _ => Err(CUT),
    }
}

fn is_start_of_ours(field: &str) -> bool {
    field.starts_with(EXTRA_MARK) || EXTRA_MARK.starts_with(field)
}

/// Checks `P1.<expiry>.<checksum>`. Returns the expiry.
fn check_extra(line: &str, ours: &str, extra_fields: usize) -> Result<Option<u64>, TicketError> {
    const CUT: TicketError = TicketError::Truncated("its checksum is not complete");
    let mut parts = ours.split('.');
    let (Some(_mark), Some(expires_at), Some(sum), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(CUT);
    };
    // Everything up to the point in front of the checksum, whatever may follow our field.
    let end = line
        .split(',')
        .take(FIELDS)
        .map(|field| field.len() + 1)
        .sum::<usize>()
        + ours.len()
        - sum.len()
        - 1;
    let covered = line.get(..end).ok_or(TicketError::Damaged)?;
    let expected = checksum(covered);
    if sum.len() < expected.len() && extra_fields == 1 {
        return Err(CUT);
    }
    if sum != expected {
        return Err(TicketError::Damaged);
    }
    match expires_at {
        "" => Ok(None),
        at => at.parse().map(Some).map_err(|_| TicketError::Damaged),
    }
}

/// Both JSON forms in one: `project` makes the difference.
#[derive(Deserialize)]
struct AnyJsonTicket {
    one_time_code: String,
    project: Option<ProjectRecord>,
    project_route: Option<JsonRoute>,
    project_identifier: Option<String>,
    project_name: Option<String>,
    project_change_history: Option<String>,
    authority_change_history: Option<String>,
    authority_route: Option<String>,
}

#[derive(Deserialize)]
struct JsonRoute {
    id: String,
    route: String,
}

fn parse_json(text: &str) -> Result<Ticket, TicketError> {
    // The error of the JSON reader may quote what it read, the code included: it is not passed on.
    let json: AnyJsonTicket = serde_json::from_str(text).map_err(|e| match e.classify() {
        serde_json::error::Category::Eof => TicketError::Truncated("the JSON object does not end"),
        _ => TicketError::NotATicket,
    })?;
    let code = read_code(&Zeroizing::new(json.one_time_code))?;
    if let Some(record) = json.project {
        return Ok(Ticket::new(record.verify()?, code, None));
    }
    fn present<T>(part: Part, value: Option<T>) -> Result<T, InvalidPart> {
        value.ok_or_else(|| InvalidPart::new(part, "is missing"))
    }
    let route = json.project_route.ok_or(TicketError::NotATicket)?;
    let identity = verify_history(
        Part::ProjectHistory,
        &present(Part::ProjectHistory, json.project_change_history)?,
    )?;
    check_identifier(
        &present(Part::ProjectIdentifier, json.project_identifier)?,
        &identity,
    )?;
    let authority = verify_history(
        Part::AuthorityHistory,
        &present(Part::AuthorityHistory, json.authority_change_history)?,
    )?;
    let project = Project::new(
        route.id,
        present(Part::ProjectName, json.project_name)?,
        route.route,
        identity,
        authority,
        present(Part::AuthorityRoute, json.authority_route)?,
    )?;
    Ok(Ticket::new(project, code, None))
}

fn read_code(text: &str) -> Result<OneTimeCode, InvalidPart> {
    OneTimeCode::from_hex(text)
        .map_err(|_| InvalidPart::new(Part::Code, "has not exactly 64 hexadecimal digits"))
}

//! The forms in which a ticket is written.

use serde::Serialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Ticket, id_in_line};
use crate::project::ProjectRecord;

/// Marks our own eighth field, version 1.
pub(super) const EXTRA_MARK: &str = "P1";

/// Bytes of SHA-256 that are kept as checksum.
const CHECKSUM_LEN: usize = 8;

/// `--output json` of a stock `project ticket`. Order and names are those of specification 03 §3.1.
#[derive(Serialize)]
struct JsonTicket<'a> {
    one_time_code: &'a str,
    project_route: JsonRoute<'a>,
    project_identifier: String,
    project_name: &'a str,
    project_change_history: String,
    authority_change_history: String,
    authority_route: &'a str,
}

#[derive(Serialize)]
struct JsonRoute<'a> {
    id: &'a str,
    route: &'a str,
}

#[derive(Serialize)]
struct LegacyTicket<'a> {
    one_time_code: &'a str,
    project: ProjectRecord,
}

impl Ticket {
    /// The text to hand out: one line of lower-case hex digits and nothing else.
    ///
    /// It is the hex of [`Ticket::to_line`], or of [`Ticket::to_json`] when the project's id is not the one
    /// that a reader of the line would take from the route.
    pub fn to_text(&self) -> Zeroizing<String> {
        let line = if id_in_line(self.project.route()) == Ok(self.project.id()) {
            self.to_line()
        } else {
            self.to_json()
        };
        Zeroizing::new(hex::encode(line.as_bytes()))
    }

    /// The comma-separated line that a stock `project ticket` prints, with our eighth field. It has slashes
    /// in it and does not survive `sed`.
    pub fn to_line(&self) -> Zeroizing<String> {
        let project = self.project();
        let expires_at = self.expires_at.map(|at| at.to_string()).unwrap_or_default();
        let mut line = Zeroizing::new(
            [
                project.route(),
                &project.identity().identifier().to_string(),
                project.name(),
                &self.code.to_hex(),
                &project.identity().history().to_hex(),
                &project.authority().history().to_hex(),
                project.authority_route(),
                &format!("{EXTRA_MARK}.{expires_at}"),
            ]
            .join(","),
        );
        let checksum = checksum(&line);
        line.push('.');
        line.push_str(&checksum);
        line
    }

    /// The JSON object that a stock `project ticket --output json` prints.
    pub fn to_json(&self) -> Zeroizing<String> {
        let project = self.project();
        let code = self.code.to_hex();
        to_json(&JsonTicket {
            one_time_code: &code,
            project_route: JsonRoute {
                id: project.id(),
                route: project.route(),
            },
            project_identifier: project.identity().identifier().to_string(),
            project_name: project.name(),
            project_change_history: project.identity().history().to_hex(),
            authority_change_history: project.authority().history().to_hex(),
            authority_route: project.authority_route(),
        })
    }

    /// Hex of the older JSON object, which has a whole project record in it.
    pub fn to_legacy_text(&self) -> Zeroizing<String> {
        let code = self.code.to_hex();
        let json = to_json(&LegacyTicket {
            one_time_code: &code,
            project: self.project.to_record(),
        });
        Zeroizing::new(hex::encode(json.as_bytes()))
    }
}

/// Checksum of everything before it.
pub(super) fn checksum(text: &str) -> String {
    hex::encode(&Sha256::digest(text.as_bytes())[..CHECKSUM_LEN])
}

fn to_json(value: &impl Serialize) -> Zeroizing<String> {
    // Strings, lists and structs only: there is nothing in them that JSON cannot say.
    Zeroizing::new(serde_json::to_string(value).unwrap_or_default())
}

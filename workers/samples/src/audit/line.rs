//! A message as a line of JSON.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portolan_runtime::Envelope;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// What a line says.
#[derive(Debug, Serialize)]
struct Line {
    time: String,
    what: &'static str,
    from: String,
    to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

/// Add a message to `out`, which goes on to the first hop of its onward route.
pub(super) fn write(out: &mut String, what: &'static str, envelope: &Envelope, digest: bool) {
    let message = &envelope.message;
    let payload = message.payload.as_slice();
    let line = Line {
        time: time(SystemTime::now()),
        what,
        from: envelope.source.to_string(),
        to: message.onward.next().map(ToString::to_string).unwrap_or_default(),
        peer: message.peer().map(|peer| peer.identifier.to_string()),
        size: payload.len(),
        sha256: digest.then(|| hex::encode(Sha256::digest(payload))),
    };
    // Texts and numbers: this cannot fail.
    if let Ok(json) = serde_json::to_string(&line) {
        out.push_str(&json);
        out.push('\n');
    }
}

/// A line that says how many are missing.
pub(super) fn missing(count: u64) -> String {
    let now = time(SystemTime::now());
    format!("{{\"time\":\"{now}\",\"what\":\"missing\",\"lines\":{count}}}\n")
}

/// RFC 3339 in UTC, with microseconds.
pub(super) fn time(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let mut text = String::with_capacity(28);
    let _ = write!(
        text,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_micros()
    );
    text
}

/// Year, month and day of a day since 1970: years begin in March here, so that the leap day is the last.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

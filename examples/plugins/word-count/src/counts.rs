//! The sums that are kept. Nothing here knows of WebAssembly.

use std::time::Duration;

use serde::Deserialize;

/// What the owner may set; all of it optional.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where a report is sent after each interval: an address such as `audit`. Without it nothing is sent.
    pub report_to: Option<String>,
    /// Seconds between reports.
    #[serde(default = "default_interval")]
    report_every: u32,
}

fn default_interval() -> u32 {
    60
}

/// A report is no stream.
const SHORTEST: u32 = 1;
const LONGEST: u32 = 24 * 60 * 60;

impl Config {
    /// Reads the configuration; empty text is one with nothing set.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = if text.trim().is_empty() { "{}" } else { text };
        let config: Self = serde_json::from_str(text).map_err(|error| {
            format!(
                "the configuration of word-count is wrong: {error}; expected is for example \
                 {{\"report_to\": \"audit\", \"report_every\": 60}}"
            )
        })?;
        if !(SHORTEST..=LONGEST).contains(&config.report_every) {
            return Err(format!(
                "`report_every` is {} s; it takes {SHORTEST} to {LONGEST}",
                config.report_every
            ));
        }
        Ok(config)
    }

    /// The time between reports.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.report_every.into())
    }
}

/// What has been counted since the worker was made.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Counts {
    /// Messages.
    pub messages: u64,
    /// Words in them.
    pub words: u64,
}

impl Counts {
    /// Counts the words of a text; how many they are.
    pub fn add(&mut self, text: &str) -> u64 {
        let words = text.split_whitespace().count() as u64;
        self.messages += 1;
        self.words += words;
        words
    }

    /// As it is kept in the node's state.
    pub fn to_bytes(self) -> Vec<u8> {
        [self.messages.to_be_bytes(), self.words.to_be_bytes()].concat()
    }

    /// Out of the node's state.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (messages, words) = bytes.split_at_checked(8)?;
        Some(Self {
            messages: u64::from_be_bytes(messages.try_into().ok()?),
            words: u64::from_be_bytes(words.try_into().ok()?),
        })
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} words in {} messages", self.words, self.messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_is_between_white_space() {
        let mut counts = Counts::default();
        assert_eq!(counts.add("  one two\tthree\n"), 3);
        assert_eq!(counts.add(""), 0);
        assert_eq!(counts.to_string(), "3 words in 2 messages");
    }

    #[test]
    fn counts_survive_being_kept() {
        let counts = Counts {
            messages: 3,
            words: 70_000,
        };
        assert_eq!(Counts::from_bytes(&counts.to_bytes()), Some(counts));
        assert_eq!(Counts::from_bytes(b"something else"), None);
    }

    #[test]
    fn a_wrong_configuration_says_what_is_expected() {
        assert!(Config::parse("").is_ok());
        assert!(
            Config::parse("{\"report_every\": 0}")
                .unwrap_err()
                .contains("1 to 86400")
        );
        assert!(
            Config::parse("{\"report\": 1}")
                .unwrap_err()
                .contains("report_to")
        );
    }
}

//! What a policy protects (spec 04, A1.1, A1.2).

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// The only action: a worker gets or sends a message.
pub const HANDLE_MESSAGE: &str = "handle_message";

/// The policy of every resource type of which the user said nothing: any peer with a valid credential.
pub const DEFAULT_EXPRESSION: &str = "(= subject.has_credential true)";

/// A kind of protected resource. A policy for a resource's own name replaces that of its type; without either, nobody
/// may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// `tcp-inlet`; the resource's name is the inlet's alias.
    TcpInlet,
    /// `tcp-outlet`; the resource's name is the address of the outlet.
    TcpOutlet,
    /// `echoer`; named `echo`.
    Echoer,
    /// `kafka-consumer`
    KafkaConsumer,
    /// `kafka-producer`
    KafkaProducer,
    /// `relay`, the right to register one; named `forwarding_service`.
    Relay,
    /// `lessor`
    Lessor,
    /// `worker`, one that the owner started by name; named by its address. Ours, not the specification's.
    Worker,
}

/// A text that names no [`ResourceType`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown resource type {0:?}: use one of tcp-inlet, tcp-outlet, echoer, kafka-consumer, kafka-producer, relay, lessor, worker"
)]
pub struct UnknownResourceType(pub String);

impl ResourceType {
    /// All of them, by their number.
    pub const ALL: [ResourceType; 8] = [
        ResourceType::TcpInlet,
        ResourceType::TcpOutlet,
        ResourceType::Echoer,
        ResourceType::KafkaConsumer,
        ResourceType::KafkaProducer,
        ResourceType::Relay,
        ResourceType::Lessor,
        ResourceType::Worker,
    ];

    /// The name on the command line, in configuration files and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            ResourceType::TcpInlet => "tcp-inlet",
            ResourceType::TcpOutlet => "tcp-outlet",
            ResourceType::Echoer => "echoer",
            ResourceType::KafkaConsumer => "kafka-consumer",
            ResourceType::KafkaProducer => "kafka-producer",
            ResourceType::Relay => "relay",
            ResourceType::Lessor => "lessor",
            ResourceType::Worker => "worker",
        }
    }

    /// Its number in messages, from 1.
    pub fn index(self) -> u8 {
        match self {
            ResourceType::TcpInlet => 1,
            ResourceType::TcpOutlet => 2,
            ResourceType::Echoer => 3,
            ResourceType::KafkaConsumer => 4,
            ResourceType::KafkaProducer => 5,
            ResourceType::Relay => 6,
            ResourceType::Lessor => 7,
            ResourceType::Worker => 8,
        }
    }

    /// The type with a number.
    pub fn from_index(index: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.index() == index)
    }
}

impl Display for ResourceType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ResourceType {
    type Err = UnknownResourceType;

    fn from_str(text: &str) -> Result<Self, UnknownResourceType> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownResourceType(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_read_back() {
        for (position, kind) in ResourceType::ALL.into_iter().enumerate() {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(usize::from(kind.index()), position + 1);
            assert_eq!(ResourceType::from_index(kind.index()), Some(kind));
        }
        assert_eq!(ResourceType::from_index(0), None);
        let error = "tcp_inlet".parse::<ResourceType>().unwrap_err();
        assert!(error.to_string().contains("tcp-inlet, tcp-outlet"));
    }
}

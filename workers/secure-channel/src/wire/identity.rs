//! Who we are: the payload of handshake messages 2 and 3 (spec 02 §5.5).

use minicbor::Decoder;

use super::{Elements, WireError, credentials, put_credentials, raw};

/// The parts of the payload, each as raw CBOR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityPayload<'a> {
    /// The change history.
    pub change_history: &'a [u8],
    /// The attestation for the static key of the handshake.
    pub attestation: &'a [u8],
    /// Credentials, each with the attestation of the key that signed it.
    pub credentials: Vec<&'a [u8]>,
    /// A fourth element, which the reference skips: what is agreed on beyond its protocol ([`crate::extensions`]).
    pub extensions: Option<&'a [u8]>,
}

impl<'a> IdentityPayload<'a> {
    /// Reads the payload; elements after the fourth are skipped.
    ///
    /// # Errors
    /// [`WireError`]. The handshake's limit on messages bounds the length.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut decoder = Decoder::new(bytes);
        let mut elements = Elements::of(&mut decoder)?;
        elements.expect(&mut decoder, "the identity payload has no change history")?;
        let change_history = raw(&mut decoder)?;
        elements.expect(&mut decoder, "the identity payload has no attestation")?;
        let attestation = raw(&mut decoder)?;
        elements.expect(&mut decoder, "the identity payload has no list of credentials")?;
        let credentials = credentials(&mut decoder)?;
        let extensions = if elements.next(&mut decoder)? {
            Some(raw(&mut decoder)?)
        } else {
            None
        };
        elements.skip_rest(&mut decoder)?;
        Ok(Self {
            change_history,
            attestation,
            credentials,
            extensions,
        })
    }

    /// Writes the payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let credentials_len: usize = self.credentials.iter().map(|credential| credential.len()).sum();
        let extensions = self.extensions.unwrap_or_default();
        let mut out = Vec::with_capacity(
            2 + self.change_history.len() + self.attestation.len() + credentials_len + extensions.len(),
        );
        out.push(if self.extensions.is_some() { 0x84 } else { 0x83 });
        out.extend_from_slice(self.change_history);
        out.extend_from_slice(self.attestation);
        put_credentials(&mut out, &self.credentials);
        out.extend_from_slice(extensions);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        hex::decode(text.replace(' ', "")).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let payload = IdentityPayload {
            change_history: &[0x81, 0x01],
            attestation: &[0x82, 0x01, 0x02],
            credentials: vec![&[0x03], &[0x82, 0x04, 0x05]],
            extensions: None,
        };
        let bytes = payload.encode();
        assert_eq!(hex::encode(&bytes), "8381018201028203820405");
        assert_eq!(IdentityPayload::decode(&bytes).unwrap(), payload);
        let payload = IdentityPayload {
            extensions: Some(&[0xa1, 0x01, 0x00]),
            ..payload
        };
        let bytes = payload.encode();
        assert_eq!(hex::encode(&bytes), "8481018201028203820405a10100");
        assert_eq!(IdentityPayload::decode(&bytes).unwrap(), payload);
    }

    #[test]
    fn what_the_reference_tolerates_is_tolerated() {
        for text in [
            "83 8101 820102 80",
            "84 8101 820102 80 a10102",
            "9f 8101 820102 9fff a0 ff",
            "83 8101 820102 80 ffff",
        ] {
            let bytes = unhex(text);
            let payload = IdentityPayload::decode(&bytes).unwrap();
            assert_eq!(
                (payload.change_history, payload.attestation),
                (&bytes[1..3], &bytes[3..6]),
                "{text}"
            );
            assert!(payload.credentials.is_empty());
        }
    }

    #[test]
    fn a_missing_element_is_refused_the_list_of_credentials_too() {
        for text in [
            "",
            "80",
            "81 8101",
            "82 8101 820102",
            "9f 8101 820102 ff",
            "a0",
            "83 8101 820102 f6",
            "83 8101 82",
        ] {
            assert!(IdentityPayload::decode(&unhex(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn more_credentials_than_the_limit_are_refused() {
        for text in [
            "83 8101 820102 89 010203040506070809",
            "83 8101 820102 9f 010203040506070809 ff",
        ] {
            assert_eq!(
                IdentityPayload::decode(&unhex(text)),
                Err(WireError::Limit("more than 8 credentials")),
                "{text}"
            );
        }
        assert!(IdentityPayload::decode(&unhex("83 8101 820102 88 0102030405060708")).is_ok());
    }
}

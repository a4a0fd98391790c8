//! The one-time code: the secret inside a ticket.

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of a code.
pub const CODE_LEN: usize = 32;

/// 32 random bytes. Whoever presents them first becomes a member, so they are shown by nothing here, `Debug`
/// included, and wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct OneTimeCode([u8; CODE_LEN]);

/// SHA-256 of a code: what an authority keeps of it. The code has full entropy, so a plain hash cannot be
/// searched.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CodeHash([u8; 32]);

/// A text that is not a one-time code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a one-time code has exactly 64 hexadecimal digits")]
pub struct NotACode;

impl OneTimeCode {
    /// A fresh code from the operating system's generator.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; CODE_LEN];
        getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Self(bytes))
    }

    /// The secret bytes.
    pub fn expose(&self) -> &[u8; CODE_LEN] {
        &self.0
    }

    /// The secret as 64 lower-case hex digits.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0))
    }

    /// Reads exactly 64 hex digits of either case.
    ///
    /// # Errors
    /// [`NotACode`], which does not repeat the text.
    pub fn from_hex(text: &str) -> Result<Self, NotACode> {
        let mut bytes = [0; CODE_LEN];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NotACode)?;
        Ok(Self(bytes))
    }

    /// What the authority compares.
    pub fn hash(&self) -> CodeHash {
        CodeHash(Sha256::digest(self.0).into())
    }
}

impl From<[u8; CODE_LEN]> for OneTimeCode {
    fn from(bytes: [u8; CODE_LEN]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for OneTimeCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OneTimeCode(..)")
    }
}

impl CodeHash {
    /// The bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A short name for logs and lists, which gives nothing of the code away.
    pub fn reference(&self) -> String {
        hex::encode(&self.0[..5])
    }
}

impl From<[u8; 32]> for CodeHash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for CodeHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CodeHash({})", self.reference())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_in_either_case_and_only_with_64_digits() {
        let code = OneTimeCode::from([0xab; 32]);
        assert_eq!(OneTimeCode::from_hex(&code.to_hex()), Ok(code.clone()));
        assert_eq!(
            OneTimeCode::from_hex(&code.to_hex().to_uppercase()),
            Ok(code.clone())
        );
        for bad in [
            &code.to_hex()[1..],
            &code.to_hex()[2..],
            "",
            " ",
            &format!("{}00", *code.to_hex()),
            &"x".repeat(64),
        ] {
            assert_eq!(OneTimeCode::from_hex(bad), Err(NotACode));
        }
    }

    #[test]
    fn a_code_is_not_shown() {
        let code = OneTimeCode::from([0x41; 32]);
        assert_eq!(format!("{code:?}"), "OneTimeCode(..)");
        assert!(!format!("{:?}", code.hash()).contains("4141"));
    }

    #[test]
    fn codes_are_random() {
        assert_ne!(OneTimeCode::random().ok(), OneTimeCode::random().ok());
    }
}

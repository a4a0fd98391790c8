//! Secrets encrypted at rest.
//!
//! A [`Sealer`] holds a random **data key** and encrypts secrets with it, each bound to its context (for a secret of a
//! vault: its handle), so that two rows of a database cannot be exchanged. The data key itself is stored as a **key slot**:
//! encrypted with a key that comes from the user's passphrase (argon2id) or from a key file of 32 bytes. To change the
//! passphrase is to write another slot; the secrets stay as they are.
//!
//! ```text
//! key slot, version 1                          sealed secret, version 1
//!  0  "PTLNSLOT"            8 bytes             0  version = 1       1 byte
//!  8  version = 1           1                   1  nonce            24
//!  9  kind 1 passphrase,    1                  25  ciphertext, tag  16 + length of the secret
//!          2 key file
//! 10  memory, KiB           4, big-endian      XChaCha20-Poly1305 with the data key;
//! 14  passes                4, big-endian      associated data: "PTLNSEAL", version, context
//! 18  lanes                 4, big-endian
//! 22  salt                 16
//! 38  nonce                24
//! 62  data key, tag        32 + 16             XChaCha20-Poly1305; associated data: bytes 0..62
//! 110 check                 8                  of SHA-256 of bytes 0..110
//! ```
//!
//! The check tells a damaged slot from a wrong passphrase. It says nothing about the passphrase. The nonces are of 24
//! bytes (the X in XChaCha20-Poly1305), so that random ones never repeat.

use crate::vault::random;
use crate::{KeyHandle, Secret, SecretKind, VaultError, sha256};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use std::fmt;
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"PTLNSLOT";
const SEAL_CONTEXT: &[u8; 8] = b"PTLNSEAL";
const VERSION: u8 = 1;
const NONCE: usize = 24;
const TAG: usize = 16;
const HEADER: usize = 62;
const CHECK: usize = 8;

/// Bytes of a key slot.
pub const SLOT_BYTES: usize = HEADER + 32 + TAG + CHECK;

/// What opens a key slot.
#[derive(Clone, Copy)]
pub enum Unlock<'a> {
    /// A passphrase, as the user typed it.
    Passphrase(&'a [u8]),
    /// The content of a key file.
    KeyFile(&'a [u8; 32]),
}

impl fmt::Debug for Unlock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unlock::Passphrase(_) => "Passphrase(..)",
            Unlock::KeyFile(_) => "KeyFile(..)",
        })
    }
}

/// How much work argon2id is, for us once per start and for a thief once per guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Cost {
    /// 64 MiB, 3 passes, 1 lane: about a tenth of a second of one core. RFC 9106 recommends this memory and number of
    /// passes where 2 GiB are too much; with one lane, since a node starts on small machines too.
    pub const DEFAULT: Cost = Cost {
        memory_kib: 64 * 1024,
        passes: 3,
        lanes: 1,
    };

    /// More than this in a slot is refused: whoever can write the file must not make us run out of memory.
    pub const MAX: Cost = Cost {
        memory_kib: 1024 * 1024,
        passes: 64,
        lanes: 16,
    };

    fn within(&self, max: &Cost) -> bool {
        self.memory_kib <= max.memory_kib && self.passes <= max.passes && self.lanes <= max.lanes
    }
}

/// Why something could not be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The slot is whole, but the passphrase is not the one it was made with.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// The slot is whole, but the key file is not the one it was made with.
    #[error("wrong key file")]
    WrongKeyFile,
    /// The slot needs a passphrase, and a key file was given.
    #[error("the secrets are protected by a passphrase, not by a key file")]
    NeedsPassphrase,
    /// The slot needs a key file, and a passphrase was given.
    #[error("the secrets are protected by a key file, not by a passphrase")]
    NeedsKeyFile,
    /// An empty passphrase protects nothing.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// These bytes are not a key slot.
    #[error("this is not a key slot")]
    NotASlot,
    /// Made by a later version of this program.
    #[error("version {0} of the format is not known to this program: use a newer one")]
    UnknownVersion(u8),
    /// The bytes of the slot have changed since it was written.
    #[error("the key slot is damaged: restore it from a backup")]
    DamagedSlot,
    /// The slot asks for more work than is reasonable, or for none.
    #[error("the key slot asks for an unreasonable amount of work ({0:?})")]
    UnreasonableCost(Cost),
    /// A sealed secret has changed, was moved to another name, or was sealed with another data key.
    #[error("a sealed secret is damaged or belongs elsewhere")]
    DamagedSecret,
    /// A key file is 32 bytes, or 64 hexadecimal digits.
    #[error("a key file holds 32 bytes, or 64 hexadecimal digits")]
    BadKeyFile,
    /// No random bytes.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// Not enough memory for argon2id, or a similar failure.
    #[error("key derivation failed: {0}")]
    Derivation(String),
}

/// Encrypts and decrypts secrets with a data key.
pub struct Sealer {
    data_key: Zeroizing<[u8; 32]>,
    cipher: XChaCha20Poly1305,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(..)")
    }
}

impl Sealer {
    /// Makes a new data key, and the slot that has to be stored.
    pub fn create(unlock: Unlock<'_>, cost: Cost) -> Result<(Self, Vec<u8>), SealError> {
        let sealer = Sealer::new(random::<32>()?);
        let slot = sealer.slot(unlock, cost)?;
        Ok((sealer, slot))
    }

    /// Opens a stored slot.
    pub fn unlock(slot: &[u8], unlock: Unlock<'_>) -> Result<Self, SealError> {
        let slot: &[u8; SLOT_BYTES] = match slot.get(..MAGIC.len()) {
            Some(magic) if magic == MAGIC => match slot.get(MAGIC.len()) {
                Some(&VERSION) => slot.try_into().map_err(|_| SealError::DamagedSlot)?,
                Some(version) => return Err(SealError::UnknownVersion(*version)),
                None => return Err(SealError::DamagedSlot),
            },
            _ => return Err(SealError::NotASlot),
        };
        let (checked, check) = slot.split_at(SLOT_BYTES - CHECK);
        if sha256(checked)[..CHECK] != *check {
            return Err(SealError::DamagedSlot);
        }
        let (header, wrapped) = checked.split_at(HEADER);
        let kind = Kind::of(&unlock);
        let wrong = match (header[9], kind) {
            (1, Kind::Passphrase) => SealError::WrongPassphrase,
            (2, Kind::KeyFile) => SealError::WrongKeyFile,
            (1, Kind::KeyFile) => return Err(SealError::NeedsPassphrase),
            (2, Kind::Passphrase) => return Err(SealError::NeedsKeyFile),
            _ => return Err(SealError::DamagedSlot),
        };
        let cost = Cost {
            memory_kib: word(header, 10),
            passes: word(header, 14),
            lanes: word(header, 18),
        };
        let key = wrapping_key(&unlock, cost, &header[22..38])?;
        let payload = Payload {
            msg: wrapped,
            aad: header,
        };
        let opened = cipher(&key)
            .decrypt(&nonce(&header[38..62]), payload)
            .map(Zeroizing::new);
        let mut data_key = Zeroizing::new([0; 32]);
        match opened {
            Ok(opened) if opened.len() == data_key.len() => data_key.copy_from_slice(&opened),
            _ => return Err(wrong),
        }
        Ok(Sealer::new(data_key))
    }

    /// Another slot for the same data key: store it in place of the old one to change the passphrase or the key file.
    pub fn slot(&self, unlock: Unlock<'_>, cost: Cost) -> Result<Vec<u8>, SealError> {
        let (salt, slot_nonce) = (random::<16>()?, random::<NONCE>()?);
        let kind = Kind::of(&unlock);
        let cost = match kind {
            Kind::Passphrase => cost,
            Kind::KeyFile => Cost {
                memory_kib: 0,
                passes: 0,
                lanes: 0,
            },
        };
        let key = wrapping_key(&unlock, cost, &salt[..])?;
        let mut slot = Vec::with_capacity(SLOT_BYTES);
        slot.extend_from_slice(MAGIC);
        slot.extend_from_slice(&[VERSION, kind as u8]);
        for number in [cost.memory_kib, cost.passes, cost.lanes] {
            slot.extend_from_slice(&number.to_be_bytes());
        }
        slot.extend_from_slice(&salt[..]);
        slot.extend_from_slice(&slot_nonce[..]);
        let payload = Payload {
            msg: &self.data_key[..],
            aad: &slot,
        };
        let wrapped = cipher(&key)
            .encrypt(&nonce(&slot_nonce[..]), payload)
            .map_err(|e| SealError::Derivation(e.to_string()))?;
        slot.extend_from_slice(&wrapped);
        let check = sha256(&slot);
        slot.extend_from_slice(&check[..CHECK]);
        Ok(slot)
    }

    /// Encrypts a secret. It can be opened only with the same context.
    pub fn seal(&self, context: &[u8], secret: &[u8]) -> Result<Vec<u8>, SealError> {
        let seal_nonce = random::<NONCE>()?;
        let payload = Payload {
            msg: secret,
            aad: &associated_data(context),
        };
        let ciphertext = self
            .cipher
            .encrypt(&nonce(&seal_nonce[..]), payload)
            .map_err(|_| SealError::DamagedSecret)?;
        Ok([&[VERSION], &seal_nonce[..], &ciphertext].concat())
    }

    /// Decrypts what [`seal`](Sealer::seal) made.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        match sealed.first() {
            Some(&VERSION) => {}
            Some(version) => return Err(SealError::UnknownVersion(*version)),
            None => return Err(SealError::DamagedSecret),
        }
        let (seal_nonce, ciphertext) = sealed[1..]
            .split_at_checked(NONCE)
            .ok_or(SealError::DamagedSecret)?;
        let payload = Payload {
            msg: ciphertext,
            aad: &associated_data(context),
        };
        self.cipher
            .decrypt(&nonce(seal_nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| SealError::DamagedSecret)
    }

    /// Encrypts a secret of a vault, bound to its handle and kind.
    pub fn seal_secret(&self, handle: &KeyHandle, secret: &Secret) -> Result<Vec<u8>, SealError> {
        self.seal(&secret_context(handle, secret.kind()), secret.expose())
    }

    /// Decrypts what [`seal_secret`](Sealer::seal_secret) made.
    pub fn open_secret(
        &self,
        handle: &KeyHandle,
        kind: SecretKind,
        sealed: &[u8],
    ) -> Result<Secret, SealError> {
        let opened = self.open(&secret_context(handle, kind), sealed)?;
        let mut bytes = Zeroizing::new([0; 32]);
        if opened.len() != bytes.len() {
            return Err(SealError::DamagedSecret);
        }
        bytes.copy_from_slice(&opened);
        Ok(Secret::new(kind, bytes))
    }

    fn new(data_key: Zeroizing<[u8; 32]>) -> Self {
        Sealer {
            cipher: cipher(&data_key),
            data_key,
        }
    }
}

/// Reads the content of a key file: 32 bytes, or 64 hexadecimal digits with white space around them.
pub fn parse_key_file(content: &[u8]) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let mut key = Zeroizing::new([0; 32]);
    if content.len() == key.len() {
        key.copy_from_slice(content);
    } else {
        hex::decode_to_slice(content.trim_ascii(), &mut key[..]).map_err(|_| SealError::BadKeyFile)?;
    }
    Ok(key)
}

/// New content for a key file: 64 hexadecimal digits and a line end.
pub fn generate_key_file() -> Result<Zeroizing<String>, SealError> {
    let key = random::<32>()?;
    let mut text = Zeroizing::new(String::with_capacity(65));
    for byte in key.iter() {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    text.push('\n');
    Ok(text)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Passphrase = 1,
    KeyFile = 2,
}

impl Kind {
    fn of(unlock: &Unlock<'_>) -> Self {
        match unlock {
            Unlock::Passphrase(_) => Kind::Passphrase,
            Unlock::KeyFile(_) => Kind::KeyFile,
        }
    }
}

/// The key that encrypts the data key.
fn wrapping_key(unlock: &Unlock<'_>, cost: Cost, salt: &[u8]) -> Result<Zeroizing<[u8; 32]>, SealError> {
    match unlock {
        Unlock::KeyFile(key) => Ok(Zeroizing::new(**key)),
        Unlock::Passphrase([]) => Err(SealError::EmptyPassphrase),
        Unlock::Passphrase(passphrase) => {
            if !cost.within(&Cost::MAX) {
                return Err(SealError::UnreasonableCost(cost));
            }
            let params = argon2::Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32))
                .map_err(|_| SealError::UnreasonableCost(cost))?;
            let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
            let mut key = Zeroizing::new([0; 32]);
            argon2
                .hash_password_into(passphrase, salt, &mut key[..])
                .map_err(|e| SealError::Derivation(e.to_string()))?;
            Ok(key)
        }
    }
}

fn cipher(key: &Zeroizing<[u8; 32]>) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new((&**key).into())
}

/// Of a slice that is 24 bytes long at every place that calls this.
fn nonce(bytes: &[u8]) -> XNonce {
    let mut nonce = XNonce::default();
    nonce.copy_from_slice(bytes);
    nonce
}

fn word(header: &[u8], at: usize) -> u32 {
    header[at..at + 4]
        .iter()
        .fold(0, |n, byte| n << 8 | u32::from(*byte))
}

fn associated_data(context: &[u8]) -> Vec<u8> {
    [SEAL_CONTEXT, &[VERSION][..], context].concat()
}

fn secret_context(handle: &KeyHandle, kind: SecretKind) -> Vec<u8> {
    [handle.as_bytes(), kind.as_str().as_bytes()].concat()
}

//! Artefacts that an honest implementation would not make: every field as the test wants it, and signed all the same.

use minicbor::Encoder;
use portolan_identity::*;
use zeroize::Zeroizing;

/// 2023-11-14, the time base of the vectors.
pub(crate) const T: u64 = 1_700_000_000;

pub(crate) const TEN_YEARS: u64 = 315_360_000;
pub(crate) const FIVE_YEARS: u64 = 157_680_000;

/// Consecutive bytes from `first`: the fixed seeds of the vectors.
pub(crate) fn seed(first: u8) -> [u8; 32] {
    std::array::from_fn(|i| first + i as u8)
}

pub(crate) fn import(vault: &SoftwareVault, kind: SecretKind, first: u8) -> KeyHandle {
    vault
        .import(&Secret::new(kind, Zeroizing::new(seed(first))))
        .unwrap()
}

/// A vault in memory, and an identity in it that was created at [`T`].
pub(crate) fn identity(key_type: KeyType) -> (SoftwareVault, Identity) {
    let vault = SoftwareVault::in_memory();
    let identity = Identity::create(&vault, T, key_type).unwrap();
    (vault, identity)
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

pub(crate) fn cbor(write: impl FnOnce(&mut Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut Encoder::new(&mut out));
    out
}

pub(crate) fn versioned(version: u8, data_type: u8, record: &[u8]) -> Vec<u8> {
    cbor(|e| {
        e.array(3)
            .unwrap()
            .u8(version)
            .unwrap()
            .u8(data_type)
            .unwrap()
            .bytes(record)
            .unwrap();
    })
}

/// A change, field by field.
#[derive(Clone)]
pub(crate) struct ForgedChange {
    pub(crate) version: u8,
    pub(crate) data_type: u8,
    pub(crate) previous: Option<[u8; 32]>,
    pub(crate) key: KeyHandle,
    pub(crate) signer: KeyHandle,
    pub(crate) previous_signer: Option<KeyHandle>,
    pub(crate) revoke: bool,
    pub(crate) from: u64,
    pub(crate) until: u64,
}

impl ForgedChange {
    pub(crate) fn first(key: KeyHandle) -> Self {
        ForgedChange {
            version: 1,
            data_type: 1,
            previous: None,
            key,
            signer: key,
            previous_signer: None,
            revoke: false,
            from: T,
            until: T + TEN_YEARS,
        }
    }

    pub(crate) fn next(key: KeyHandle, before: &ForgedChange, vault: &SoftwareVault) -> Self {
        ForgedChange {
            previous: Some(sha256(&before.data(vault))),
            previous_signer: Some(before.key),
            ..ForgedChange::first(key)
        }
    }

    pub(crate) fn data(&self, vault: &SoftwareVault) -> Vec<u8> {
        let record = cbor(|e| {
            e.array(5).unwrap();
            match &self.previous {
                Some(hash) => e.bytes(hash).unwrap(),
                None => e.null().unwrap(),
            };
            e.encode(vault.verifying_key(&self.key).unwrap()).unwrap();
            e.bool(self.revoke)
                .unwrap()
                .u64(self.from)
                .unwrap()
                .u64(self.until)
                .unwrap();
        });
        versioned(self.version, self.data_type, &record)
    }

    fn write(&self, vault: &SoftwareVault, e: &mut Encoder<&mut Vec<u8>>) {
        let data = self.data(vault);
        let digest = sha256(&data);
        e.array(2 + u64::from(self.previous_signer.is_some()))
            .unwrap()
            .bytes(&data)
            .unwrap();
        e.encode(vault.sign(&self.signer, &digest).unwrap()).unwrap();
        if let Some(signer) = &self.previous_signer {
            e.encode(vault.sign(signer, &digest).unwrap()).unwrap();
        }
    }
}

pub(crate) fn history(vault: &SoftwareVault, changes: &[ForgedChange]) -> Vec<u8> {
    cbor(|e| {
        e.array(changes.len() as u64).unwrap();
        changes.iter().for_each(|change| change.write(vault, e));
    })
}

/// An attestation, field by field.
#[derive(Clone)]
pub(crate) struct ForgedAttestation {
    pub(crate) version: u8,
    pub(crate) data_type: u8,
    pub(crate) subject: Identifier,
    pub(crate) change: ChangeHash,
    pub(crate) key: PurposePublicKey,
    pub(crate) created_at: u64,
    pub(crate) expires_at: u64,
    pub(crate) signer: KeyHandle,
}

impl ForgedAttestation {
    pub(crate) fn of(identity: &Identity, key: PurposePublicKey) -> Self {
        ForgedAttestation {
            version: 1,
            data_type: 2,
            subject: *identity.identifier(),
            change: identity.latest_change_hash(),
            key,
            created_at: T + 200,
            expires_at: T + 200 + FIVE_YEARS,
            signer: KeyHandle::of_verifying_key(identity.latest_public_key()),
        }
    }

    pub(crate) fn make(&self, vault: &SoftwareVault) -> PurposeKeyAttestation {
        let record = cbor(|e| {
            e.array(5)
                .unwrap()
                .encode(self.subject)
                .unwrap()
                .encode(self.change)
                .unwrap();
            e.encode(self.key)
                .unwrap()
                .u64(self.created_at)
                .unwrap()
                .u64(self.expires_at)
                .unwrap();
        });
        let data = versioned(self.version, self.data_type, &record);
        PurposeKeyAttestation::decode(&signed(vault, &self.signer, &data)).unwrap()
    }
}

/// A credential, field by field.
#[derive(Clone)]
pub(crate) struct ForgedCredential {
    pub(crate) version: u8,
    pub(crate) data_type: u8,
    pub(crate) subject: Option<Identifier>,
    pub(crate) change: Option<ChangeHash>,
    pub(crate) attributes: Attributes,
    pub(crate) created_at: u64,
    pub(crate) expires_at: u64,
    pub(crate) signer: KeyHandle,
}

impl ForgedCredential {
    pub(crate) fn about(subject: Identifier, signer: KeyHandle) -> Self {
        ForgedCredential {
            version: 1,
            data_type: 3,
            subject: Some(subject),
            change: None,
            attributes: Attributes::from_pairs([("role", "member")]).unwrap(),
            created_at: T + 300,
            expires_at: T + 300 + 3600,
            signer,
        }
    }

    pub(crate) fn make(&self, vault: &SoftwareVault) -> Credential {
        let record = cbor(|e| {
            e.array(5)
                .unwrap()
                .encode(self.subject)
                .unwrap()
                .encode(self.change)
                .unwrap();
            e.encode(&self.attributes)
                .unwrap()
                .u64(self.created_at)
                .unwrap()
                .u64(self.expires_at)
                .unwrap();
        });
        let data = versioned(self.version, self.data_type, &record);
        minicbor::decode(&signed(vault, &self.signer, &data)).unwrap()
    }
}

/// The record of signed bytes and their signature.
pub(crate) fn signed(vault: &SoftwareVault, signer: &KeyHandle, data: &[u8]) -> Vec<u8> {
    cbor(|e| {
        e.array(2).unwrap().bytes(data).unwrap();
        e.encode(vault.sign(signer, &sha256(data)).unwrap()).unwrap();
    })
}

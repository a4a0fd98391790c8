//! The published vectors: specification, part 02, section 8.

use crate::forge::*;
use portolan_identity::*;

/// §8.1: identifiers and histories. The second is P-256.
const IDENTITIES: [(&str, &str); 4] = [
    (
        "I923829d0397a06fa862be5a87b7966959b8ef99ab6455b843ca9131a747b4819",
        "\
         81825837830101583285f68200815820f405e06d988fa8039cce1cd0ae607e46847c1b64bc459ca9d89dd9b21ae30681\
         f41a654cebe91a7818eee98200815840494c9b70e8a9ad5593fceb478f722a513b4bd39fa70f4265d584253bc24617d0\
         eb498ce532273f6d0d5326921e013696fce57c20cc6c4008f74b816810f0b009",
    ),
    (
        "I84502ce0d9a0a91bae29026b84e19be69fb4203a6bdd1424c85a43c812772a00",
        "\
         81825858830101585385f6820181584104ebf9d78281a04f180029c12a74e994386c7c9fee24903f3bfe351497a99527\
         58ee5f4b57d7ed6236ab5082ed85e1ae8c07d5600e0587f652d36727904b3e310df41a656a365d1a7836395d82018158\
         4050bf79071ecaf08a966228c712295a17da53994dc781a22103602afe656276ef83ba83a1004845b1e979e0944abff3\
         cd8c7ceef834a8f5eeeca0e8f720fa38f4",
    ),
    (
        "I59469f87a447f9e6302fce0b09d82db8d60657c7a0f76fe88c3b3d1a58286636",
        "\
         81825837830101583285f68200815820245ba33c7729dce1c94d8c1a00fcf89a7af33689d4563176f9dffbdd147d4488\
         f41a66e2ee7b1a79aef17b820081584070856bb8da621154a39c894a2fedded55257715b00940b9cffe54b51d87889af\
         f2c077124ee6e0e1c2e711688470affbc65d909c87acf4e41d38bdfb03e2000d",
    ),
    (
        "If5e3906385b214c84e81c433aad7f673c8f3bffc5f6630d8bc88ed80c79d91d5",
        "\
         81825837830101583285f6820081582045d9dac79f226762025fc82e7407aee4a4c8e7068dc04edd44f1c777b8f0cf6b\
         f41a66e2ee7b1a79aef17b8200815840c65ce655fd57cf2ea0b0679066a24bc99e2b223341186b5eaec951101f291e96\
         c5fc8343291a23cbd8dc063ad1f9a9554f036e8f34ab5388e444977e7e29ab0b",
    ),
];

/// §8.2: RefreshCredentials, a history and one credential inside a message.
const REFRESH: &str = "\
    828201818281825837830101583285f682008158208bd01513a019c95d96553015b1b0a3014e7bd67c7f3c8e6223e839\
    111041f8d6f41a659c99fd1a78689cfd820081584067118992d037593809f8b217641aed54dc983f2847f95b2068207c\
    3647beb73a60b0e14012c14bfee487c880f0f74d9f8a7d7abd3ef333f2f90f097ef366900c81828258e183010358dc85\
    5820904192e6e480915e0d1256d3abf9c3c9c67bc2b4c41ffca77550d8a3f12fbb1e5820904192e6e480915e0d1256d3\
    abf9c3c9c67bc2b4c41ffca77550d8a3f12fbb1e8201a44b6f636b616d2d72656c6179412a4a6f636b616d2d726f6c65\
    48656e726f6c6c65724a70726f6a6563745f6964582437363764343631632d393835312d346330622d626663362d3664\
    333333346235626363325074727573745f636f6e746578745f6964582437363764343631632d393835312d346330622d\
    626663362d3664333333346235626363321a659ca3cf1a659ca3ed8200815840cf27a0a3052c53b1f27bf7776ca95c7d\
    cdd7a0f493cc5b1e30f9d35712bb8fde16f69065aa9f70b3689a8f1b7b05fc13e6e807efa719031d1a415d25b61c360b\
    82587c8301025877855820b1fea1775d75079abdb1e78b96921fa9ec340bc2b5aa70f37e65342d859cf5505820b1fea1\
    775d75079abdb1e78b96921fa9ec340bc2b5aa70f37e65342d859cf5508201818200815820389852b0f4fee7b6b96244\
    2a924d1672c56b8813fb846a50da80db7e1bbe41591a659c9a2f1a6f029baf8200815840adf4a66e097de839d3539694\
    a6c6a82a978ff009205df8bf7eb03b9990958b7c4e7037fd9d365cf220a2757ed60f0542f47965d8b9f354fd950841ce\
    6630460640";

/// §8.5: change 0 with key A, change 1 with key B.
const ROTATED: &str = "\
    82825837830101583285f6820081582003a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8\
    f41a6553f1001a781ff4008200815840d4b86c2665e7f06bcd316bc173b45f5058d51bfe6f73a5a60bc68827daa526bc\
    260d9b8cf23a76210bc79ed41c4911a244872af8ff7c777e89324f4617cb2507835858830101585385582096acb3edb9\
    5c4f832483ef1c67d74480f43ff426d944236192d6f9e83083b8b4820081582029acbae141bccaf0b22e1a94d34d0bc7\
    361e526d0bfe12c89794bc9322966dd7f41a6553f1641a781ff4648200815840552e480102da960b52eb77ee14e51f0b\
    f0ba8b2b9a789c04fd38629003367a9d65428e377c3d0d8d83589ff22a405b7d19cfdfb86dacb0ef1b312152df7e7a05\
    820081584088841144107e229ae7717d10d3d95819cd7e221ac078e10b6877a1e4460edc121f68e09eb33c5bd3f86408\
    05b87da9f709e72a535d63b2ddae4b96b91d06c50f";

const CHANNEL_ATTESTATION: &str = "\
    825879830102587485582096acb3edb95c4f832483ef1c67d74480f43ff426d944236192d6f9e83083b8b4582025ac10\
    f5879c58e9b46fd109270f4aea628f8004a2c24f48ba6b7780cabe1da6820081582079a631eede1bf9c98f12032cdead\
    d0e7a079398fc786b88cc846ec89af85a51a1a6553f1c81a6eb9f3488200815840d4d8f687e257fdb47a0c64768de5c6\
    86a95a1e617d39f0cb957e0029086d7a9ecef0d4a19bf822e066a035964a66274bfabe9287bba8bf1a5b98b3fac86487\
    03";

const CREDENTIAL: &str = "\
    828258678301035862855820abababababababababababababababababababababababababababababababab5820abab\
    abababababababababababababababababababababababababababababab8201a2416b417644726f6c65466d656d6265\
    721a6553f22c1a6eaf936c820081584000873f98fd8d78379cac9d14b05b4384b620f8d4fccbaf5478f53a6a8b2f36e1\
    c11ad6c1ee0fcd09a3138bd8d823e5724b8db0881a2675dd9b47cfacae0ee40182587c830102587785582096acb3edb9\
    5c4f832483ef1c67d74480f43ff426d944236192d6f9e83083b8b4582025ac10f5879c58e9b46fd109270f4aea628f80\
    04a2c24f48ba6b7780cabe1da68201818200815820174553b456dddfc6908ecab1c101fe6ab21e2baa0617795b7d43a6\
    3482993fd51a6553f1c81a6eb9f3488200815840da01cb78ab2d86ea5c088c34183bfdd0906cf55ce0ea6d21985b09d6\
    0cc3b8c3cac13e7331455cff9e268968f4257ca927edfa9b8ef6c6ce9a73a1a326f09c0e";

#[test]
fn published_histories_verify_and_have_the_published_identifiers() {
    for (identifier, text) in IDENTITIES {
        let identifier: Identifier = identifier.parse().unwrap();
        let identity = Identity::from_hex(text, Some(&identifier)).unwrap();
        assert_eq!(*identity.identifier(), identifier);
        assert_eq!(identity.history().to_hex(), text);
        assert_eq!(hex::encode(identity.history().encode()), text);
        assert_eq!(identity.latest_change_hash(), identifier.change_hash());
    }
}

#[test]
fn a_published_history_is_not_of_another_identifier() {
    let (_, text) = IDENTITIES[0];
    let expected = IDENTITIES[1].0.parse().unwrap();
    let refused = Identity::from_hex(text, Some(&expected)).unwrap_err();
    assert!(
        matches!(refused, HistoryError::UnexpectedIdentifier { .. }),
        "{refused}"
    );
}

#[test]
fn the_published_refresh_message_holds_a_history_and_a_credential_signed_by_its_purpose_key() {
    let bytes = hex::decode(REFRESH).unwrap();
    assert_eq!(bytes.len(), 629);
    let mut d = minicbor::Decoder::new(&bytes);
    // The message and its padding; variant 1 with one field; a history and a list.
    assert_eq!(
        (d.array().unwrap(), d.array().unwrap(), d.u32().unwrap()),
        (Some(2), Some(2), 1)
    );
    assert_eq!((d.array().unwrap(), d.array().unwrap()), (Some(1), Some(2)));
    let history: ChangeHistory = d.decode().unwrap();
    let credentials = decode_credentials(&mut d).unwrap();
    assert_eq!(d.bytes().unwrap(), b"");
    assert_eq!(d.position(), bytes.len());

    let subject = "I904192e6e480915e0d1256d3abf9c3c9c67bc2b4c41ffca77550d8a3f12fbb1e"
        .parse()
        .unwrap();
    Identity::verify(history, Some(&subject)).unwrap();

    let [credential] = &credentials[..] else {
        panic!("{} credentials", credentials.len())
    };
    let said = credential.credential.read().unwrap();
    assert_eq!(said.subject, Some(subject));
    assert_eq!(said.subject_latest_change_hash, Some(subject.change_hash()));
    assert_eq!((said.created_at, said.expires_at), (1704764367, 1704764397));
    assert_eq!(said.attributes.schema(), 1);
    assert_eq!(said.attributes.len(), 4);
    assert!(said.attributes.has("ockam-relay", "*"));
    assert!(said.attributes.has("ockam-role", "enroller"));

    let attested = credential.attestation.read().unwrap();
    let issuer: Identifier = "Ib1fea1775d75079abdb1e78b96921fa9ec340bc2b5aa70f37e65342d859cf550"
        .parse()
        .unwrap();
    assert_eq!(attested.subject, issuer);
    let PurposePublicKey::CredentialSigning(key) = attested.public_key else {
        panic!("{attested:?}")
    };
    assert_eq!(hex::encode(&key.as_bytes()[..4]), "389852b0");

    // The history of the issuer is not part of the vector, so only the signature of the credential can be checked.
    let record = minicbor::to_vec(&credential.credential).unwrap();
    let mut d = minicbor::Decoder::new(&record);
    d.array().unwrap();
    let digest = sha256(d.bytes().unwrap());
    let signature: Signature = d.decode().unwrap();
    key.verify(&digest, &signature).unwrap();

    // Written again, the credential is the same bytes.
    assert!(REFRESH.ends_with(&(credential.to_hex() + "40")));
}

#[test]
fn a_rotation_with_the_published_seeds_gives_the_published_bytes() {
    let (vault, identity) = published_identity();
    assert_eq!(identity.history().to_hex(), ROTATED);
    assert_eq!(
        identity.identifier().to_string(),
        "I96acb3edb95c4f832483ef1c67d74480f43ff426d944236192d6f9e83083b8b4"
    );
    assert_eq!(
        identity.latest_change_hash().to_string(),
        "25ac10f5879c58e9b46fd109270f4aea628f8004a2c24f48ba6b7780cabe1da6"
    );
    assert!(
        vault
            .contains(&KeyHandle::of_verifying_key(identity.latest_public_key()))
            .unwrap()
    );
    assert_eq!(Identity::from_hex(ROTATED, None).unwrap(), identity);
}

#[test]
fn an_attestation_with_the_published_seeds_gives_the_published_bytes() {
    let (vault, identity) = published_identity();
    let channel = import(&vault, SecretKind::X25519, 0x40);
    let public = vault.x25519_public_key(&channel).unwrap();
    assert_eq!(
        hex::encode(public),
        "79a631eede1bf9c98f12032cdeadd0e7a079398fc786b88cc846ec89af85a51a"
    );
    let attestation = PurposeKeyAttestation::create(
        &vault,
        &identity,
        PurposePublicKey::SecureChannelStatic(public),
        T + 200,
        FIVE_YEARS,
    )
    .unwrap();
    assert_eq!(hex::encode(attestation.encode()), CHANNEL_ATTESTATION);

    let read = PurposeKeyAttestation::decode(&hex::decode(CHANNEL_ATTESTATION).unwrap()).unwrap();
    let data = read.verify(&identity, T + 200).unwrap();
    assert_eq!(data.public_key, PurposePublicKey::SecureChannelStatic(public));
    assert_eq!(
        (data.created_at, data.expires_at),
        (T + 200, T + 200 + FIVE_YEARS)
    );
}

#[test]
fn a_credential_with_the_published_seeds_gives_the_published_bytes() {
    let (vault, identity) = published_identity();
    let key = import(&vault, SecretKind::Ed25519, 0x60);
    let public = vault.verifying_key(&key).unwrap();
    let attestation = PurposeKeyAttestation::create(
        &vault,
        &identity,
        PurposePublicKey::CredentialSigning(public),
        T + 200,
        FIVE_YEARS,
    )
    .unwrap();
    let subject = Identifier::from([0xab; 32]);
    let statement = CredentialData {
        subject: Some(subject),
        subject_latest_change_hash: Some([0xab; 32].into()),
        attributes: Attributes::from_pairs([("role", "member"), ("k", "v")]).unwrap(),
        created_at: T + 300,
        expires_at: T + 300 + 157_000_000,
    };
    let credential = Credential::sign(&vault, &key, &statement).unwrap();
    let issued = CredentialAndPurposeKey {
        credential,
        attestation,
    };
    assert_eq!(issued.to_hex(), CREDENTIAL);

    let verified = CredentialAndPurposeKey::from_hex(CREDENTIAL)
        .unwrap()
        .verify(Some(&subject), std::slice::from_ref(&identity), T + 300)
        .unwrap();
    assert_eq!(verified.issuer, *identity.identifier());
    assert_eq!(verified.attributes, statement.attributes);
    assert_eq!(verified.expires_at, statement.expires_at);
}

/// The identity of §8.5, with the fixed seeds.
fn published_identity() -> (SoftwareVault, Identity) {
    let vault = SoftwareVault::in_memory();
    let key_a = import(&vault, SecretKind::Ed25519, 0x00);
    let key_b = import(&vault, SecretKind::Ed25519, 0x20);
    let first = Identity::create_with_key(&vault, &key_a, T).unwrap();
    let rotated = first.rotate_to_key(&vault, &key_b, T + 100).unwrap();
    (vault, rotated)
}

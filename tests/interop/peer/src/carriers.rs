//! Handshakes with something in the carriers C1 to C3 (specification 06), made by hand from the library's cores.

use std::sync::Arc;
use std::time::Duration;

use portolan_identity::{PurposeKeyAttestation, PurposePublicKey};
use portolan_runtime::{Address, Context, Message, Payload, Route};
use portolan_secure_channel::aead::{KeyBytes, Suite, TAG_LEN};
use portolan_secure_channel::handshake::{Initiator, Responder, SessionKeys, StaticKey, X25519Secret};
use portolan_secure_channel::record::{NONCE_LEN, Opener, Sealer};
use portolan_secure_channel::wire::identity::IdentityPayload;
use portolan_secure_channel::wire::message::{ChannelMessage, PAYLOAD_TAIL, put_payload_head};
use tokio::time::timeout;

use crate::party::{Failure, Party, now};

const LIMIT: Duration = Duration::from_secs(10);

/// The address of the responder with something in C2.
pub(crate) const RAW_LISTENER: &str = "raw";

struct Keys {
    static_key: Arc<X25519Secret>,
    ephemeral: KeyBytes,
    payload: Vec<u8>,
}

/// A static key of its own, and an identity payload with `extra` (one CBOR item) as the fourth element.
fn keys(party: &Party, extra: &[u8]) -> Result<Keys, Failure> {
    // Random enough for a test: addresses are 16 random bytes in hexadecimal.
    let random = || -> Result<[u8; 32], Failure> { Ok(Address::random().as_bytes().try_into()?) };
    let static_key = Arc::new(X25519Secret::from_bytes(&random()?));
    let attestation = PurposeKeyAttestation::create(
        party.vault.as_ref(),
        &party.identity,
        PurposePublicKey::SecureChannelStatic(static_key.public_key()),
        now(),
        3600,
    )?
    .encode();
    let mut payload = IdentityPayload {
        change_history: party.identity.history().encode(),
        attestation: &attestation,
        credentials: Vec::new(),
        extensions: None,
    }
    .encode();
    if !extra.is_empty() {
        payload[0] = 0x84;
        payload.extend_from_slice(extra);
    }
    Ok(Keys {
        static_key,
        ephemeral: random()?.into(),
        payload,
    })
}

async fn next(context: &mut Context) -> Result<Message, Failure> {
    let envelope = timeout(LIMIT, context.next())
        .await?
        .ok_or("the node is stopping")?;
    Ok(envelope.message)
}

fn record(sealer: &mut Sealer, onward: &Route, back: &Route, payload: &[u8]) -> Result<Payload, Failure> {
    let mut buffer = vec![0; NONCE_LEN];
    put_payload_head(&mut buffer, onward.as_slice(), back.as_slice(), payload.len());
    buffer.extend_from_slice(payload);
    buffer.extend_from_slice(&PAYLOAD_TAIL);
    buffer.extend_from_slice(&[0; TAG_LEN]);
    sealer.seal(&mut buffer)?;
    Ok(Payload::copy_from(&buffer))
}

/// Opens a record that has to be a payload: where to answer, and what it says.
fn opened(opener: &mut Opener, message: &mut Message) -> Result<(Route, Vec<u8>), Failure> {
    let plaintext = opener.open(message.payload.as_mut_slice())?.plaintext;
    match ChannelMessage::decode(plaintext)? {
        ChannelMessage::Payload { back, payload, .. } => Ok((back, plaintext[payload].to_vec())),
        _ => Err("another kind of message".into()),
    }
}

fn ends(keys: &SessionKeys) -> (Sealer, Opener) {
    (
        Sealer::new(Suite::Aes256Gcm, keys.send.clone()),
        Opener::new(Suite::Aes256Gcm, keys.receive.clone()),
    )
}

/// Opens a channel along `route` with `offer` in message 1 (C1) and `extra` in message 3 (C3), and gives the echo of
/// `said` through it.
pub(crate) async fn initiate(
    party: &Party,
    route: Route,
    offer: &[u8],
    extra: &[u8],
    said: &[u8],
) -> Result<Vec<u8>, Failure> {
    let keys = keys(party, extra)?;
    let mut context = party.node.context(Address::random())?;
    let own = context.address().clone();
    if let Some(flow) = route.next().and_then(|first| party.node.flow_of(first)) {
        party.node.add_consumer(&flow, &own);
    }
    let (waiting, message_1) = Initiator::new(keys.static_key, &keys.ephemeral).write_message_1(offer)?;
    context
        .send_message(Message::new(route, own.clone(), Payload::copy_from(&message_1)))
        .await?;
    let mut answer = next(&mut context).await?;
    let (writing, theirs) = waiting
        .read_message_2(answer.payload.as_mut_slice())
        .map_err(|rejected| rejected.error)?;
    IdentityPayload::decode(theirs)?;
    let (session, message_3) = writing.write_message_3(&keys.payload)?;
    let remote = answer.back;
    context
        .send_message(Message::new(
            remote.clone(),
            own.clone(),
            Payload::copy_from(&message_3),
        ))
        .await?;
    let (mut sealer, mut opener) = ends(&session);
    let back = Route::from(Address::local("app"));
    let sealed = record(&mut sealer, &Address::local("echo").into(), &back, said)?;
    context
        .send_message(Message::new(remote, Route::new(), sealed))
        .await?;
    let mut answer = next(&mut context).await?;
    Ok(opened(&mut opener, &mut answer)?.1)
}

/// Answers one handshake at [`RAW_LISTENER`] with `extra` in message 2 (C2), and sends the first message that comes
/// through the channel back. Gives what it said, and what was in C1 of message 1.
pub(crate) async fn respond(party: &Party, extra: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let keys = keys(party, extra)?;
    let mut context = party.node.context(RAW_LISTENER)?;
    let own = context.address().clone();
    for flow in &party.flows {
        party.node.add_consumer(flow, &own);
    }
    let asked = next(&mut context).await?;
    let (writing, offer) =
        Responder::new(keys.static_key, &keys.ephemeral).read_message_1(asked.payload.as_slice())?;
    let offer = offer.to_vec();
    let (waiting, message_2) = writing.write_message_2(&keys.payload)?;
    let remote = asked.back.clone();
    context
        .send_message(Message::new(
            remote.clone(),
            own.clone(),
            Payload::copy_from(&message_2),
        ))
        .await?;
    let mut last = next(&mut context).await?;
    let (session, theirs) = waiting
        .read_message_3(last.payload.as_mut_slice())
        .map_err(|rejected| rejected.error)?;
    IdentityPayload::decode(theirs)?;
    let (mut sealer, mut opener) = ends(&session);
    let mut first = next(&mut context).await?;
    let (back, said) = opened(&mut opener, &mut first)?;
    let sealed = record(&mut sealer, &back, &own.into(), &said)?;
    context
        .send_message(Message::new(remote, Route::new(), sealed))
        .await?;
    Ok((said, offer))
}

//! Everything that the broker persists, as bytes. The journal carries them and knows nothing of it.
//!
//! **Invariant:** what one version has written, every later version reads. Each payload starts with a byte that tells
//! the version of its layout; within a version, fields are only added, as Protocol Buffers allow.

mod bodies;
mod checkpoint;
mod policy;
mod record;
mod settings;
mod wire;

pub(super) use bodies::{Bodies, Payload, body_of};
pub(super) use checkpoint::{decode_checkpoint, encode_checkpoint};
pub(super) use record::{
    Stored, decode_messages, decode_record, encode_carried, encode_record, hash_of, key_of, message_of,
};

/// The layout that this version writes.
const VERSION: u8 = 1;

/// Bytes that this version does not understand: a newer one wrote them, or they are not ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    /// The first byte.
    #[error("layout {0} is not known to this version")]
    Version(u8),
    /// There is not even a first byte.
    #[error("there are no bytes")]
    Empty,
    /// The rest.
    #[error("the bytes do not decode: {0}")]
    Wire(#[from] prost::DecodeError),
    /// A field that must be there, or holds what it can't hold.
    #[error("`{0}` is missing or wrong")]
    Field(&'static str),
}

/// What follows the version, if it is one that we know.
fn body(bytes: &[u8]) -> Result<&[u8], CodecError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((other, _)) => Err(CodecError::Version(*other)),
        None => Err(CodecError::Empty),
    }
}

/// Version and message.
fn versioned(message: &impl prost::Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + message.encoded_len());
    bytes.push(VERSION);
    message.encode_raw(&mut bytes);
    bytes
}

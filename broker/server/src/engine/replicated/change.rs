//! Changes of files as messages of the stream.
//!
//! The subject names the file, so that all that is known of one can be purged together. The payload is a version, a
//! kind, a number and bytes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::engine::embedded::Change;

/// Messages carry at most this many bytes of a file; servers allow a mebibyte unless they are told otherwise.
const PIECE_BYTES_MAX: usize = 512 << 10;
/// The version of this encoding.
const VERSION: u8 = 1;
/// What stands before the bytes: version, kind and number.
const HEAD_BYTES: usize = 1 + 1 + 8;
/// Room for the headers that say which message it is and which one it follows.
const HEADERS_BYTES_MAX: usize = 1 << 10;
/// The largest message that a server has to take.
pub(super) const MESSAGE_BYTES_MAX: usize = HEADERS_BYTES_MAX + HEAD_BYTES + PIECE_BYTES_MAX;

const CREATE: u8 = 1;
const WRITE: u8 = 2;
const TRUNCATE: u8 = 3;
const REMOVE: u8 = 4;
const STAGE: u8 = 5;
const COMMIT: u8 = 6;

/// One message's worth of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Create,
    Write {
        offset: u64,
        bytes: Bytes,
    },
    Truncate {
        size: u64,
    },
    Remove,
    /// Bytes of a file that is not there yet.
    Stage {
        offset: u64,
        bytes: Bytes,
    },
    /// What was staged is the file, and has this size.
    Commit {
        size: u64,
    },
}

/// The messages of a change, in order.
pub(super) fn encode(change: Change<'_>) -> Vec<Bytes> {
    match change {
        Change::Create => vec![message(CREATE, 0, &[])],
        Change::Write { offset, bytes } => pieces(WRITE, offset, bytes).collect(),
        Change::Truncate { size } => vec![message(TRUNCATE, size, &[])],
        Change::Remove => vec![message(REMOVE, 0, &[])],
        Change::Place { content } => {
            pieces(STAGE, 0, content).chain([message(COMMIT, content.len() as u64, &[])]).collect()
        }
    }
}

/// What a message says.
pub(super) fn decode(mut payload: Bytes) -> Result<Piece, &'static str> {
    if payload.len() < HEAD_BYTES {
        return Err("it is too short");
    }
    let bytes = payload.split_off(HEAD_BYTES);
    let [version, kind, number @ ..] = &payload[..] else { return Err("it is too short") };
    let number = u64::from_le_bytes(number.try_into().map_err(|_| "it is too short")?);
    let bare = |piece| if bytes.is_empty() { Ok(piece) } else { Err("its kind has no bytes") };
    match (*version, *kind) {
        (VERSION, CREATE) => bare(Piece::Create),
        (VERSION, WRITE) => Ok(Piece::Write { offset: number, bytes }),
        (VERSION, TRUNCATE) => bare(Piece::Truncate { size: number }),
        (VERSION, REMOVE) => bare(Piece::Remove),
        (VERSION, STAGE) => Ok(Piece::Stage { offset: number, bytes }),
        (VERSION, COMMIT) => bare(Piece::Commit { size: number }),
        (VERSION, _) => Err("its kind is unknown"),
        _ => Err("its version is unknown"),
    }
}

fn pieces(kind: u8, offset: u64, bytes: &[u8]) -> impl Iterator<Item = Bytes> {
    bytes.chunks(PIECE_BYTES_MAX).scan(offset, move |at, piece| {
        let encoded = message(kind, *at, piece);
        *at += piece.len() as u64;
        Some(encoded)
    })
}

fn message(kind: u8, number: u64, bytes: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(HEAD_BYTES + bytes.len());
    message.put_u8(VERSION);
    message.put_u8(kind);
    message.put_u64_le(number);
    message.put_slice(bytes);
    message.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(change: Change<'_>) -> Vec<Piece> {
        encode(change).into_iter().map(|message| decode(message).unwrap()).collect()
    }

    #[test]
    fn a_change_comes_back_as_it_was_written_and_a_large_one_in_pieces() {
        assert_eq!(round(Change::Create), [Piece::Create]);
        assert_eq!(round(Change::Truncate { size: 7 }), [Piece::Truncate { size: 7 }]);
        assert_eq!(round(Change::Remove), [Piece::Remove]);
        let bytes = vec![3; PIECE_BYTES_MAX + 1];
        let (first, second) = (Bytes::copy_from_slice(&bytes[1..]), Bytes::from_static(&[3]));
        let cut = PIECE_BYTES_MAX as u64;
        let written =
            [Piece::Write { offset: 9, bytes: first.clone() }, Piece::Write { offset: 9 + cut, bytes: second.clone() }];
        assert_eq!(round(Change::Write { offset: 9, bytes: &bytes }), written);
        let placed = [
            Piece::Stage { offset: 0, bytes: first },
            Piece::Stage { offset: cut, bytes: second },
            Piece::Commit { size: cut + 1 },
        ];
        assert_eq!(round(Change::Place { content: &bytes }), placed);
        assert_eq!(round(Change::Place { content: &[] }), [Piece::Commit { size: 0 }]);
    }

    #[test]
    fn what_is_no_change_is_refused() {
        let good = message(TRUNCATE, 7, &[]);
        for cut in 0..good.len() {
            assert!(decode(good.slice(..cut)).is_err(), "{cut} bytes");
        }
        let altered = |at: usize, byte: u8| {
            let mut bytes = good.to_vec();
            bytes[at] = byte;
            decode(bytes.into())
        };
        assert_eq!(altered(0, 2), Err("its version is unknown"));
        assert_eq!(altered(1, 9), Err("its kind is unknown"));
        for kind in [CREATE, TRUNCATE, REMOVE, COMMIT] {
            assert_eq!(decode(message(kind, 0, b"x")), Err("its kind has no bytes"));
        }
    }
}

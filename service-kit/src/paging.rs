//! Page sizes and page tokens for list methods.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// How many items a page has when the caller does not say.
pub const PAGE_ITEMS_DEFAULT: u32 = 50;

/// How many items a page has at most; a larger wish is cut to it.
pub const PAGE_ITEMS_MAX: u32 = 1_000;

/// How long a page token may be, in bytes.
pub const TOKEN_BYTES_MAX: usize = 1_024;

/// Bytes of the checksum that stands in front of a token.
const CHECKSUM_BYTES: usize = 4;

/// Why a page cannot be given.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The page size is below zero.
    #[error("is negative")]
    NegativeSize,
    /// The token was not made by this method, or for other filters than these.
    #[error("is not a token that this list has given for these filters")]
    ForeignToken,
}

/// The number of items that a page shall have: zero means the default, and too many means the most.
pub fn page_size(wish: i32) -> Result<u32, Error> {
    match u32::try_from(wish) {
        Ok(0) => Ok(PAGE_ITEMS_DEFAULT),
        Ok(wish) => Ok(wish.min(PAGE_ITEMS_MAX)),
        Err(_) => Err(Error::NegativeSize),
    }
}

/// A token for the page after `key` (the last item's position), bound to the method and its filters.
pub fn encode(filters: &[&str], key: &str) -> String {
    let mut token = checksum(filters, key).to_be_bytes().to_vec();
    token.extend_from_slice(key.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(token)
}

/// The position in a token, or `None` for the first page (an empty token).
pub fn decode(filters: &[&str], token: &str) -> Result<Option<String>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Error::ForeignToken);
    }
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| Error::ForeignToken)?;
    let (sum, key) = bytes.split_at_checked(CHECKSUM_BYTES).ok_or(Error::ForeignToken)?;
    let key = String::from_utf8(key.to_vec()).map_err(|_| Error::ForeignToken)?;
    if sum == checksum(filters, &key).to_be_bytes() { Ok(Some(key)) } else { Err(Error::ForeignToken) }
}

fn checksum(filters: &[&str], key: &str) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in filters.iter().chain([&key]) {
        // The length keeps ["ab", "c"] and ["a", "bc"] apart.
        hasher.update(&part.len().to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_for_the_same_filters_only() {
        let token = encode(&["ListOrders", "alice", "2"], "1700000000000/o-1");
        assert_eq!(decode(&["ListOrders", "alice", "2"], &token), Ok(Some("1700000000000/o-1".into())));
        assert_eq!(decode(&["ListOrders", "bob", "2"], &token), Err(Error::ForeignToken));
        assert_eq!(decode(&["ListOrders", "alice2", ""], &token), Err(Error::ForeignToken));
        assert_eq!(decode(&[], ""), Ok(None));
    }

    #[test]
    fn garbage_is_no_token() {
        for token in ["?", "AAAA", "AAA", "Zm9vYmFy", &"A".repeat(TOKEN_BYTES_MAX + 1)] {
            assert_eq!(decode(&["ListOrders"], token), Err(Error::ForeignToken), "{token}");
        }
    }

    #[test]
    fn page_sizes_have_a_default_and_a_most() {
        assert_eq!(page_size(0), Ok(PAGE_ITEMS_DEFAULT));
        assert_eq!(page_size(7), Ok(7));
        assert_eq!(page_size(i32::MAX), Ok(PAGE_ITEMS_MAX));
        assert_eq!(page_size(-1), Err(Error::NegativeSize));
    }
}

//! The test cards: each token stands for one behaviour of a card or of the line to the acquirer.
//!
//! | token | what happens |
//! | --- | --- |
//! | `tok_visa` | is charged |
//! | `tok_insufficient_funds` | is declined with `insufficient_funds` |
//! | `tok_stolen_card` | is declined with `stolen_card` |
//! | `tok_expired_card` | is declined with `expired_card` |
//! | `tok_slow` | is charged, and the answer comes two seconds later |
//! | `tok_flaky` | the first two requests under a key are answered with 503, the third is charged |
//! | `tok_lost_reply` | is charged, and the connection is cut instead of the first answer |
//! | `tok_refund_flaky` | is charged; the first request that would give the money back is answered with 503 |
//! | `tok_refund_lost_reply` | is charged; the money goes back, and the connection is cut instead of the first answer |
//! | any other | is declined with `unknown_card` |

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How often a flaky card fails under one key before it is charged.
const FLAKY_FAILURES: u32 = 2;
/// How often a flaky refund fails for one charge.
const FLAKY_REFUND_FAILURES: u32 = 1;
/// For how many keys it is remembered how often they have failed.
const STUMBLES_KEYS_MAX: usize = 10_000;

/// What a card does when it is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Card {
    /// Is charged.
    Good,
    /// Is refused for this reason.
    Bad(&'static str),
    /// Is charged, but the first answer never arrives: the connection is cut instead.
    LostReply,
    /// Is charged, and the answer takes its time.
    Slow,
    /// Is charged after some failures.
    Flaky,
    /// Is charged, and refunded after a failure.
    RefundFlaky,
    /// Is charged and refunded, but the first answer to the refund never arrives.
    RefundLostReply,
}

impl Card {
    /// What a token stands for. An unknown card is refused as banks refuse one: that is an answer, not an error.
    pub(super) fn from_token(token: &str) -> Self {
        match token {
            "tok_visa" => Self::Good,
            "tok_insufficient_funds" => Self::Bad("insufficient_funds"),
            "tok_stolen_card" => Self::Bad("stolen_card"),
            "tok_expired_card" => Self::Bad("expired_card"),
            "tok_lost_reply" => Self::LostReply,
            "tok_slow" => Self::Slow,
            "tok_flaky" => Self::Flaky,
            "tok_refund_flaky" => Self::RefundFlaky,
            "tok_refund_lost_reply" => Self::RefundLostReply,
            _ => Self::Bad("unknown_card"),
        }
    }

    /// Why the card is refused, if it is.
    pub(super) fn decline_reason(self) -> Option<&'static str> {
        match self {
            Self::Bad(reason) => Some(reason),
            Self::Good | Self::LostReply | Self::Slow | Self::Flaky | Self::RefundFlaky | Self::RefundLostReply => None,
        }
    }

    /// How often a charge under one key fails first.
    pub(super) fn failures(self) -> u32 {
        if self == Self::Flaky { FLAKY_FAILURES } else { 0 }
    }

    /// How often giving money back fails first.
    pub(super) fn refund_failures(self) -> u32 {
        if self == Self::RefundFlaky { FLAKY_REFUND_FAILURES } else { 0 }
    }
}

/// Remembers how often something has failed on purpose. Forgotten when the acquirer stops.
#[derive(Clone, Debug, Default)]
pub(super) struct Stumbles(Arc<Mutex<HashMap<String, u32>>>);

impl Stumbles {
    /// Whether what goes by this name has to fail once more, if it fails `times` times in all.
    pub(super) fn stumbles(&self, name: String, times: u32) -> bool {
        if times == 0 {
            return false;
        }
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= STUMBLES_KEYS_MAX {
            counts.clear();
        }
        let count = counts.entry(name).or_default();
        let stumbles = *count < times;
        *count += u32::from(stumbles);
        stumbles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_behaves_as_documented() {
        for (token, reason) in [
            ("tok_visa", None),
            ("tok_lost_reply", None),
            ("tok_slow", None),
            ("tok_flaky", None),
            ("tok_refund_flaky", None),
            ("tok_refund_lost_reply", None),
            ("tok_insufficient_funds", Some("insufficient_funds")),
            ("tok_stolen_card", Some("stolen_card")),
            ("tok_expired_card", Some("expired_card")),
            ("tok_nobody_knows", Some("unknown_card")),
            ("", Some("unknown_card")),
        ] {
            assert_eq!(Card::from_token(token).decline_reason(), reason, "{token}");
        }
    }

    #[test]
    fn each_name_stumbles_as_often_as_it_should() {
        let stumbles = Stumbles::default();
        for name in ["a", "b"] {
            let seen = [(); 4].map(|()| stumbles.stumbles(name.to_owned(), 2));
            assert_eq!(seen, [true, true, false, false]);
        }
        assert!(!stumbles.stumbles("c".to_owned(), 0));
    }
}

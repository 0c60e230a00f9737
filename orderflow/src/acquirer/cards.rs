//! The test cards: each token stands for one behaviour of a card or of the line to the acquirer.

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
}

impl Card {
    /// What a token stands for. An unknown card is refused as banks refuse one: that is an answer, not an error.
    pub(super) fn from_token(token: &str) -> Self {
        match token {
            "tok_visa" => Self::Good,
            "tok_insufficient_funds" => Self::Bad("insufficient_funds"),
            "tok_stolen_card" => Self::Bad("stolen_card"),
            "tok_lost_reply" => Self::LostReply,
            "tok_slow" => Self::Slow,
            _ => Self::Bad("unknown_card"),
        }
    }

    /// Why the card is refused, if it is.
    pub(super) fn decline_reason(self) -> Option<&'static str> {
        match self {
            Self::Bad(reason) => Some(reason),
            Self::Good | Self::LostReply | Self::Slow => None,
        }
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
            ("tok_insufficient_funds", Some("insufficient_funds")),
            ("tok_stolen_card", Some("stolen_card")),
            ("tok_nobody_knows", Some("unknown_card")),
            ("", Some("unknown_card")),
        ] {
            assert_eq!(Card::from_token(token).decline_reason(), reason, "{token}");
        }
    }
}

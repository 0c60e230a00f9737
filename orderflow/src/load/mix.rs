//! What kinds of orders a load is made of, and how many of each.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The greatest weight of one kind in a mix.
pub const MIX_WEIGHT_MAX: u32 = 1_000;
/// How long an order of the kind `deadline` may wait for its payment before it is cancelled by itself, in milliseconds.
pub const DEADLINE_MS: u64 = 5_000;

/// What an order is meant to go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Is charged.
    Paid,
    /// Is declined by its card.
    Declined,
    /// Is charged after two answers of 503.
    Flaky,
    /// Is charged, and the acquirer's first answer is lost.
    LostReply,
    /// Is charged, and the acquirer's answer takes two seconds.
    Slow,
    /// Is cancelled by its customer as soon as it is accepted.
    Cancelled,
    /// Is cancelled by itself when it is not paid within [`DEADLINE_MS`].
    Deadline,
    /// Is charged within the request that places it.
    Synchronous,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Paid,
        Self::Declined,
        Self::Flaky,
        Self::LostReply,
        Self::Slow,
        Self::Cancelled,
        Self::Deadline,
        Self::Synchronous,
    ];

    /// The name that a mix uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Paid => "paid",
            Self::Declined => "declined",
            Self::Flaky => "flaky",
            Self::LostReply => "lost-reply",
            Self::Slow => "slow",
            Self::Cancelled => "cancelled",
            Self::Deadline => "deadline",
            Self::Synchronous => "synchronous",
        }
    }

    /// The card that makes it so.
    pub(super) fn card(self) -> &'static str {
        match self {
            Self::Declined => "tok_insufficient_funds",
            Self::Flaky => "tok_flaky",
            Self::LostReply => "tok_lost_reply",
            Self::Slow => "tok_slow",
            Self::Paid | Self::Cancelled | Self::Deadline | Self::Synchronous => "tok_visa",
        }
    }

    /// How long it may wait for its payment, if that is limited.
    pub(super) fn deadline(self) -> Option<Duration> {
        (self == Self::Deadline).then_some(Duration::from_millis(DEADLINE_MS))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Weights by kind of order, such as `paid=90,declined=5,cancelled=5`. At least one of them is not zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(Vec<(Kind, u32)>);

/// Why a text is no mix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MixError {
    /// An entry has no weight.
    #[error("`{0}` is not such as paid=90")]
    Form(String),
    /// There is no such kind of order.
    #[error("`{0}` is no kind of order; there are {kinds}", kinds = Kind::ALL.map(Kind::name).join(", "))]
    Kind(String),
    /// A weight is none, or too great.
    #[error("the weight of `{kind}` is not a number from 0 to {MIX_WEIGHT_MAX}")]
    Weight {
        /// Whose weight.
        kind: Kind,
    },
    /// A kind is named twice.
    #[error("`{0}` is named twice")]
    Twice(Kind),
    /// Nothing would ever be ordered.
    #[error("all weights are zero")]
    Nothing,
}

impl Mix {
    /// Orders of one kind only.
    pub fn only(kind: Kind) -> Self {
        Self(vec![(kind, 1)])
    }

    /// The kind that an even choice of `random` falls on.
    pub(super) fn choose(&self, random: &mut fastrand::Rng) -> Kind {
        let total: u32 = self.0.iter().map(|(_, weight)| weight).sum();
        let mut left = random.u32(0..total);
        for (kind, weight) in &self.0 {
            match left.checked_sub(*weight) {
                Some(rest) => left = rest,
                None => return *kind,
            }
        }
        unreachable!("the choice is below the sum of the weights")
    }
}

impl Default for Mix {
    fn default() -> Self {
        Self(vec![(Kind::Paid, 90), (Kind::Declined, 5), (Kind::Cancelled, 5)])
    }
}

impl FromStr for Mix {
    type Err = MixError;

    fn from_str(text: &str) -> Result<Self, MixError> {
        let mut weights: Vec<(Kind, u32)> = Vec::new();
        for entry in text.split(',') {
            let (name, weight) = entry.split_once('=').ok_or_else(|| MixError::Form(entry.to_owned()))?;
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name.trim());
            let kind = kind.ok_or_else(|| MixError::Kind(name.trim().to_owned()))?;
            let weight = weight.trim().parse().ok().filter(|weight| *weight <= MIX_WEIGHT_MAX);
            if weights.iter().any(|(named, _)| *named == kind) {
                return Err(MixError::Twice(kind));
            }
            weights.push((kind, weight.ok_or(MixError::Weight { kind })?));
        }
        if weights.iter().all(|(_, weight)| *weight == 0) {
            return Err(MixError::Nothing);
        }
        Ok(Self(weights))
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (kind, weight)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{kind}={weight}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_read_as_it_is_written() {
        for text in ["paid=90,declined=5,cancelled=5", "lost-reply=1", "paid=0,synchronous=1000"] {
            assert_eq!(text.parse::<Mix>().unwrap().to_string(), text);
        }
        let every = Kind::ALL.map(|kind| format!("{kind}=1")).join(",");
        assert_eq!(every.parse::<Mix>().unwrap().to_string(), every);
        assert_eq!(Mix::default().to_string().parse(), Ok(Mix::default()));
    }

    #[test]
    fn what_is_no_mix_is_refused_with_its_reason() {
        let refused = |text: &str| text.parse::<Mix>().unwrap_err();
        assert_eq!(refused(""), MixError::Form(String::new()));
        assert_eq!(refused("paid"), MixError::Form("paid".to_owned()));
        assert_eq!(refused("stolen=1"), MixError::Kind("stolen".to_owned()));
        for text in ["paid=-1", "paid=many", "paid=1001"] {
            assert_eq!(refused(text), MixError::Weight { kind: Kind::Paid }, "{text}");
        }
        assert_eq!(refused("paid=1,paid=2"), MixError::Twice(Kind::Paid));
        assert_eq!(refused("paid=0,slow=0"), MixError::Nothing);
    }

    #[test]
    fn kinds_come_as_often_as_they_weigh() {
        let mix: Mix = "paid=3,declined=0,slow=1".parse().unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        let chosen: Vec<Kind> = (0..4_000).map(|_| mix.choose(&mut random)).collect();
        let paid = chosen.iter().filter(|kind| **kind == Kind::Paid).count();
        assert!((2_800..3_200).contains(&paid), "{paid} of 4000 are paid");
        assert!(!chosen.contains(&Kind::Declined));
    }
}

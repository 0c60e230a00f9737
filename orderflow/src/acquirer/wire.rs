//! What the acquirer says and hears, as JSON.

use serde::{Deserialize, Serialize};

/// At most so many entries come in one page of the ledger.
pub const LEDGER_PAGE_MAX: u32 = 1_000;

/// Why a charge is declined whose key was cancelled before.
pub const CANCELLED: &str = "cancelled";

/// What a charge asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChargeRequest {
    /// In minor units of the currency, above zero.
    pub amount_minor: i64,
    /// ISO 4217: three capital letters.
    pub currency: String,
    /// A card token.
    pub card: String,
    /// What the merchant calls it; here the order id.
    pub reference: String,
    /// Whether the money is taken at once; without it, it is only held until it is captured or voided.
    #[serde(default = "yes")]
    pub capture: bool,
}

fn yes() -> bool {
    true
}

/// How a charge stands. Every one but the first is kept for ever under the charge's idempotency key, or moves only
/// from captured to refunded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChargeStatus {
    /// The money is held, not taken.
    Authorised,
    /// The money was taken. Some of it may have gone back.
    Captured,
    /// The card was refused, or the key had been cancelled.
    Declined,
    /// The money was held and let go.
    Voided,
    /// All of the money went back.
    Refunded,
}

/// The answer to a charge, and to what is done with it later: the charge as it stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChargeReply {
    /// The acquirer's id of the charge.
    pub id: String,
    /// How it stands.
    pub status: ChargeStatus,
    /// Why no money was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// As asked.
    pub amount_minor: i64,
    /// As asked.
    pub currency: String,
    /// As asked.
    pub reference: String,
    /// How much of it went back.
    #[serde(default)]
    pub refunded_minor: i64,
    /// The newest refund, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund_id: Option<String>,
}

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// The place in the ledger, growing from 1.
    pub number: i64,
    /// The caller's key.
    pub idempotency_key: String,
    /// The card token.
    pub card: String,
    /// How it stands.
    #[serde(flatten)]
    pub charge: ChargeReply,
    /// How it came there, oldest first.
    #[serde(default)]
    pub movements: Vec<Movement>,
}

/// A step of a charge. The kind is the status that it led to; a refund of a part is a refund as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movement {
    /// What was done.
    pub kind: ChargeStatus,
    /// About how much.
    pub amount_minor: i64,
    /// The refund's id, or the charge's.
    pub id: String,
    /// When; 0 for what was done before times were kept.
    pub time_ms: i64,
}

/// A page of the ledger, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LedgerPage {
    /// The entries; an empty page is the end.
    pub entries: Vec<LedgerEntry>,
}

/// The body of a capture, a void or a refund.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    /// How much, in minor units. A refund may give back a part; captures and voids are about the whole. All that is
    /// left when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_minor: Option<i64>,
}

/// The body of `POST /v1/cancellations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancellationRequest {
    /// The key of the charge that is not to stay.
    pub idempotency_key: String,
}

/// What a cancellation met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancellationOutcome {
    /// Nothing yet: a charge that comes under the key is declined.
    Blocked,
    /// A charge that had taken nothing and never will.
    Declined,
    /// Money that was held: it is let go.
    Voided,
    /// Money that was taken: it went back.
    Refunded,
}

/// The answer to a cancellation; the same again has the same one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancellationReply {
    /// What was met.
    pub outcome: CancellationOutcome,
    /// The charge, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<ChargeReply>,
}

/// What goes wrong from now on, with every card. Forgotten when the acquirer stops.
///
/// | mode | charges, captures, voids, refunds and cancellations |
/// | --- | --- |
/// | `normal` | are answered at once |
/// | `unavailable` | are answered with 503, and nothing is done |
/// | `slow` | are done, and answered two seconds later |
/// | `lost_replies` | are done, and the connection is cut instead of the answer |
/// | `decline_all` | charges are declined with `do_not_honour`; the others are answered at once |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Answers at once.
    #[default]
    Normal,
    /// Answers with 503 and records nothing.
    Unavailable,
    /// Answers late.
    Slow,
    /// Does what it is asked and never says so.
    LostReplies,
    /// Declines every card.
    DeclineAll,
}

/// The body of `PUT /v1/behaviour`, and what `GET` of it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behaviour {
    /// How to behave.
    pub mode: Mode,
    /// How many of a hundred requests the mode is for, chosen by chance. All when absent.
    #[serde(default = "all", skip_serializing_if = "is_all")]
    pub percent: u8,
}

/// Every request.
pub(super) const PERCENT_ALL: u8 = 100;

impl Behaviour {
    /// A mode for every request.
    pub fn always(mode: Mode) -> Self {
        Self { mode, percent: PERCENT_ALL }
    }
}

fn all() -> u8 {
    PERCENT_ALL
}

// serde hands a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_all(percent: &u8) -> bool {
    *percent == PERCENT_ALL
}

/// The body of every refusal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong, in words.
    pub error: String,
}

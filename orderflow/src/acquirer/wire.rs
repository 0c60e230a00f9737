//! What the acquirer says and hears, as JSON.

use serde::{Deserialize, Serialize};

/// At most so many entries come in one page of the ledger.
pub const LEDGER_PAGE_MAX: u32 = 1_000;

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
}

/// How a charge ended. Both are answers, and both are kept for ever under their idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChargeStatus {
    /// The money was taken.
    Captured,
    /// The card was refused.
    Declined,
}

/// The answer to a charge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChargeReply {
    /// The acquirer's id of the charge.
    pub id: String,
    /// Whether the money was taken.
    pub status: ChargeStatus,
    /// Why it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// As asked.
    pub amount_minor: i64,
    /// As asked.
    pub currency: String,
    /// As asked.
    pub reference: String,
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
    /// What was answered.
    #[serde(flatten)]
    pub charge: ChargeReply,
}

/// A page of the ledger, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LedgerPage {
    /// The entries; an empty page is the end.
    pub entries: Vec<LedgerEntry>,
}

/// How the acquirer is to behave from now on. Forgotten when it stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Answers at once.
    #[default]
    Normal,
    /// Answers every charge with 503 and records nothing.
    Unavailable,
    /// Answers every charge late.
    Slow,
}

/// The body of `PUT /v1/behaviour`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Behaviour {
    /// How to behave.
    pub mode: Mode,
}

/// The body of every refusal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong, in words.
    pub error: String,
}

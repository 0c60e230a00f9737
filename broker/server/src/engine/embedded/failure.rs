//! What ends the engine for good.

use std::io;
use std::path::PathBuf;

use broker_core::{ReplayError, Seq, TopicId};
use broker_log::Position;

use super::codec::CodecError;

/// What ends the engine for good. After it nothing is answered any more, and recovery is the only repair.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The journal can't be written or read.
    #[error("the journal failed: {0}")]
    Journal(#[from] broker_log::Error),
    /// An entry is not what this version writes.
    #[error("the entry at offset {} of segment {} can't be understood: {source}", position.offset, position.segment)]
    Entry { position: Position, source: CodecError },
    /// A message is not what this version writes.
    #[error("message {seq} of topic {topic} can't be understood: {source}")]
    Message { topic: TopicId, seq: Seq, source: CodecError },
    /// The checkpoint is not what this version writes.
    #[error("the checkpoint can't be understood: {0}")]
    Checkpoint(CodecError),
    /// An entry contradicts what came before it.
    #[error("the entry at offset {} of segment {} can't follow: {source}", position.offset, position.segment)]
    Replay { position: Position, source: ReplayError },
    /// The checkpoint contradicts itself.
    #[error("the checkpoint can't be restored: {0}")]
    Restore(ReplayError),
    /// A message that is still needed isn't in the journal.
    #[error("message {seq} of topic {topic} is not in the journal")]
    Missing { topic: TopicId, seq: Seq },
    /// The directory can't be used.
    #[error("data directory `{}` (--data-dir, BROKER_DATA_DIR) can't be used: {source}", dir.display())]
    Directory { dir: PathBuf, source: io::Error },
    /// Another broker works on the directory.
    #[error("data directory `{}` (--data-dir, BROKER_DATA_DIR) is in use by another broker", dir.display())]
    Locked { dir: PathBuf },
    /// The writer can't have its thread.
    #[error("no thread for the writer: {0}")]
    Thread(io::Error),
    /// A thread ended without saying why.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

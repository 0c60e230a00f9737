//! `broker check`.

use std::path::PathBuf;

use broker_log::Checked;

use super::output;
use crate::Error;
use crate::engine::embedded;

/// Which journal is read.
#[derive(Clone, Debug, clap::Args)]
pub struct Check {
    /// Directory that holds the journal
    #[arg(long, env = "BROKER_DATA_DIR", default_value = "broker-data")]
    data_dir: PathBuf,
}

impl Check {
    pub(super) fn execute(self) -> Result<(), Error> {
        let Checked { segments, bytes, checkpoint, checkpoints_damaged, torn_bytes } = embedded::check(&self.data_dir)?;
        let mut lines = vec![format!("{bytes} bytes in {segments} segments are sound.")];
        match checkpoint {
            Some(number) => lines.push(format!("The newest checkpoint is number {number}.")),
            None => lines.push("There is no checkpoint.".to_owned()),
        }
        let damaged = |file| format!("The checkpoint `{file}` is damaged; a start passes over it.");
        lines.extend(checkpoints_damaged.into_iter().map(damaged));
        if torn_bytes > 0 {
            lines.push(format!("{torn_bytes} bytes at the end were never confirmed; a start cuts them off."));
        }
        Ok(output::line(&lines.join("\n"))?)
    }
}

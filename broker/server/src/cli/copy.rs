//! `broker copy`.

use std::path::PathBuf;

use super::output;
use crate::Error;
use crate::engine::replicated::{self, NAME_DEFAULT, Target, Transferred};
use crate::{EngineAddress, EngineName, Replicas};

/// From where to where.
#[derive(Clone, Debug, clap::Args)]
pub struct Copy {
    /// Directory whose journal is copied into the NATS cluster, where none may be; it stays as it is
    #[arg(long, value_name = "DIR", required_unless_present = "to", conflicts_with = "to")]
    from: Option<PathBuf>,
    /// New directory that the journal of the NATS cluster is copied into; the cluster keeps it
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// NATS servers, as for `serve`
    #[arg(long, env = "BROKER_ENGINE", value_name = "URL", hide_env_values = true)]
    engine: EngineAddress,
    /// Name of the journal in the NATS cluster
    #[arg(long, env = "BROKER_ENGINE_NAME", default_value = NAME_DEFAULT)]
    engine_name: EngineName,
    /// Servers of the NATS cluster that keep the journal, as for `serve`
    #[arg(long, env = "BROKER_ENGINE_REPLICAS")]
    engine_replicas: Option<Replicas>,
}

impl Copy {
    pub(super) async fn execute(self) -> Result<(), Error> {
        let Self { from, to, engine: servers, engine_name: name, engine_replicas: replicas } = self;
        let target = Target { servers, name, replicas };
        let (moved, serves) = match (from, to) {
            (Some(from), _) => (replicated::copy_in(&from, &target).await?, format!("`{}`", from.display())),
            (None, Some(to)) => (replicated::copy_out(&target, &to).await?, "the one in the cluster".to_owned()),
            (None, None) => return Ok(()),
        };
        let Transferred { files, bytes } = moved;
        let lines =
            format!("Copied {bytes} bytes in {files} files. Serve {serves} no more: two journals would deliver twice.");
        Ok(output::line(&lines)?)
    }
}

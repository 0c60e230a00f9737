//! `orderflow doctor`: says what is wrong with a folder, its stack and this machine, and what to do about it.
//!
//! **Invariant:** it changes nothing. Files are opened for reading only; what is asked of a running stack are questions.

mod databases;
mod finding;
mod folder;
mod journal;
mod machine;
mod ports;
mod running;
mod servers;
mod settings;

use std::path::Path;

pub use self::finding::{Diagnosis, Finding, Level};
use self::folder::State;

/// Looks at everything. `command` is the whole command line, which knows every setting.
pub(crate) async fn examine(data_dir: &Path, command: &clap::Command) -> Diagnosis {
    let (mut findings, mut settings) = settings::check(command);
    if let Some(config) = &mut settings.up {
        // The folder of a stack past one machine is one, whatever the environment says.
        config.scale.scale |= data_dir.join("nats").exists();
    }
    findings.extend(machine::check(data_dir));
    findings.extend(settings.up.as_ref().and_then(|config| servers::installed(&config.scale)));
    let (state, about_folder) = folder::check(data_dir);
    findings.extend(about_folder);
    match state {
        // Its parts hold their ports and their files; they know best how they are.
        State::Running => findings.extend(running::check(data_dir).await),
        State::Free => {
            findings.extend(ports::check(settings.up.as_ref()));
            findings.extend(journal::check(&data_dir.join("broker")));
            findings.extend(databases::check(data_dir).await);
        }
        State::Absent | State::Unusable => findings.extend(ports::check(settings.up.as_ref())),
    }
    findings.extend(databases::ask(&settings.databases).await);
    if let Some((servers, name)) = &settings.engine {
        findings.push(servers::journal(servers, name).await);
    }
    Diagnosis { findings }
}

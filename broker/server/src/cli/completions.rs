//! Completions for shells.

use super::error::Error;
use super::output;

/// A shell that completions can be printed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    /// `source <(broker completions bash)`
    Bash,
    /// `broker completions zsh > "${fpath[1]}/_broker"`
    Zsh,
    /// `broker completions fish | source`
    Fish,
}

impl Shell {
    pub(super) fn print(self, mut program: clap::Command) -> Result<(), Error> {
        let shell = match self {
            Self::Bash => clap_complete::Shell::Bash,
            Self::Zsh => clap_complete::Shell::Zsh,
            Self::Fish => clap_complete::Shell::Fish,
        };
        let name = program.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut program, name, &mut script);
        output::bytes(&script)
    }
}

//! `runspan completions`: a completion script for a shell.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Done, Session};

/// What `completions` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runspan completions bash > ~/.local/share/bash-completion/completions/runspan
  runspan completions zsh > \"${fpath[1]}/_runspan\"
  runspan completions fish > ~/.config/fish/completions/runspan.fish")]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "runspan", &mut script);
    session.print(&String::from_utf8_lossy(&script))
}

//! `netd completion`.

use std::io;
use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, output};

/// Write a shell's completion script
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  netd completion bash > /etc/bash_completion.d/netd
  netd completion zsh > /usr/local/share/zsh/site-functions/_netd
  netd completion fish > ~/.config/fish/completions/netd.fish")]
pub(super) struct Args {
    shell: Shell,
}

pub(super) fn write(args: &Args) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "netd", &mut script);
    let script = String::from_utf8(script).map_err(io::Error::other)?;
    output::print(&script)?;
    Ok(ExitCode::SUCCESS)
}

//! What the commands about several things of one kind have in common: the flags of `ls` and `inspect`, and how they print.

use std::fmt::Display;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use netd_api::Filter;
use netd_api::value::Reference;
use serde::Serialize;

use super::each;
use super::output::{self, Format, print, print_json, print_one};

// No doc comments on these: clap would take them for those of the commands that they are flattened into.
#[derive(Args, Debug)]
pub(super) struct ListFlags {
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Only such, see below
    #[arg(short, long, value_name = "K=V")]
    pub filter: Vec<Filter>,
}

#[derive(Args, Debug)]
pub(super) struct InspectFlags {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<Reference>,
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
}

impl ListFlags {
    /// `table` is given how much of an id to show.
    pub(super) fn print<T: Serialize>(
        &self,
        found: &[T],
        id: impl Fn(&T) -> &str,
        table: impl FnOnce(&dyn Fn(&T) -> String) -> String,
    ) -> Result<ExitCode> {
        let id = |one: &T| if self.no_trunc { id(one).to_owned() } else { output::short(id(one)) };
        if self.quiet {
            print(&found.iter().map(|one| id(one) + "\n").collect::<String>())?;
        } else if self.format == Format::Json {
            print_json(&found)?;
        } else {
            print(&table(&id))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl InspectFlags {
    /// Asks for each; those that are found are shown, whatever becomes of the others.
    pub(super) fn print<T: Serialize, E>(
        &self,
        kind: impl Display,
        mut ask: impl FnMut(Reference) -> Result<T, E>,
    ) -> Result<ExitCode>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let mut found = Vec::new();
        let code = each(&self.names, |name| {
            found.push(ask(name.clone()).with_context(|| format!("inspect the {kind} {name}"))?);
            Ok(())
        })?;
        match self.format {
            Format::Json => print_json(&found)?,
            Format::Table => found.iter().try_for_each(|one| print_one(one, Format::Table))?,
        }
        Ok(code)
    }
}

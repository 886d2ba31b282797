//! What keeps the house in order: which module may use which, where unsafe code may be, how long a file may get.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The order is written once, for people, in ARCHITECTURE.md: a line of modules may use those above it and its own line.
#[test]
fn no_import_inside_netd_points_upward() -> Result<()> {
    let ranks = ranks()?;
    let mut wrong = BTreeSet::new();
    let source = root().join("netd/src");
    for file in rust_files(&source)? {
        let module = top_module(&source, &file)?;
        if ["main", "lib", "testing"].contains(&module.as_str()) || file.ends_with("tests.rs") {
            continue;
        }
        let Some(own) = ranks.get(&module) else {
            wrong.insert(format!("the module {module} has no place in ARCHITECTURE.md"));
            continue;
        };
        let text = fs::read_to_string(&file)?;
        // Tests at the end of a file may use what they like.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for used in imports(code).filter(|used| *used != module) {
            match ranks.get(&used) {
                Some(rank) if rank <= own => {}
                Some(_) => drop(
                    wrong.insert(format!("{module} uses {used}, which is above it ({})", file.display())),
                ),
                None => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[test]
fn unsafe_code_lives_in_sys_alone() -> Result<()> {
    for package in fs::read_dir(root())?.flatten() {
        let manifest = package.path().join("Cargo.toml");
        let Ok(text) = fs::read_to_string(&manifest) else { continue };
        let inherits = text.contains("[lints]\nworkspace = true");
        assert!(
            inherits || package.file_name() == "sys",
            "{} does not take the workspace's lints",
            manifest.display()
        );
    }
    let workspace = fs::read_to_string(root().join("Cargo.toml"))?;
    assert!(workspace.contains(r#"unsafe_code = "forbid""#));
    Ok(())
}

#[test]
fn files_are_short_and_say_what_lives_in_them() -> Result<()> {
    let mut wrong = Vec::new();
    for file in rust_files(&root())? {
        let text = fs::read_to_string(&file)?;
        let lines = text.lines().count();
        if lines > LONGEST {
            wrong.push(format!("{} has {lines} lines", file.display()));
        }
        if !text.starts_with("//!") && !file.ends_with("tests.rs") {
            wrong.push(format!("{} does not say what lives there", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

/// A row whose test was renamed proves nothing.
#[test]
fn every_test_that_the_table_of_cases_names_exists() -> Result<()> {
    let table = fs::read_to_string(root().join("tests/README.md"))?;
    let mut wrong = BTreeSet::new();
    for named in table.split('`').skip(1).step_by(2) {
        let Some((subject, test)) = named.split_once("::") else { continue };
        let scenarios = root().join("tests/tests").join(subject);
        let file = scenarios.with_extension("rs");
        let places = match (file.exists(), scenarios.exists()) {
            (true, _) => vec![file],
            (false, true) => rust_files(&scenarios)?,
            (false, false) => rust_files(&root().join(subject))?,
        };
        let declared = format!("fn {test}(");
        let exists = |place: &PathBuf| fs::read_to_string(place).is_ok_and(|text| text.contains(&declared));
        if !places.iter().any(exists) {
            wrong.insert(named);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

fn ranks() -> Result<BTreeMap<String, usize>> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md"))?;
    let (_, after) = text.split_once("inside `netd` a test does").context("ARCHITECTURE.md has the order")?;
    let block = after.split("```").nth(1).context("the order is a block of code")?;
    let mut ranks = BTreeMap::new();
    for (rank, line) in block.lines().filter(|line| !line.trim().is_empty()).enumerate() {
        let modules = line.split("  ").next().unwrap_or_default();
        ranks.extend(modules.split_whitespace().map(|module| (module.to_owned(), rank)));
    }
    Ok(ranks)
}

/// The first names after `crate::`, in braces too.
fn imports(code: &str) -> impl Iterator<Item = String> {
    code.split("crate::").skip(1).flat_map(|after| {
        let group =
            after.strip_prefix('{').and_then(|inside| inside.split_once('}')).map(|(inside, _)| inside);
        let items: Vec<_> = group.map_or_else(|| vec![after], |inside| inside.split(',').collect());
        let first = |item: &str| {
            item.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
        };
        items.into_iter().map(first).collect::<Vec<_>>()
    })
}

fn top_module(source: &Path, file: &Path) -> Result<String> {
    let inside = file.strip_prefix(source)?;
    let first = inside.iter().next().context("a file has a name")?.to_string_lossy();
    Ok(first.trim_end_matches(".rs").to_owned())
}

/// All Rust sources below `dir`, without what Cargo builds.
fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)?.flatten() {
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "target" {
            found.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

const LONGEST: usize = 500;

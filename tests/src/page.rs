//! The pages in docs, as what they tell people to write and to type.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

pub struct Block {
    /// What stands after the three ticks.
    pub kind: String,
    /// The last heading before it.
    pub section: String,
    /// The last path that the text before it names: where a file goes.
    pub path: Option<String>,
    pub text: String,
}

pub fn read(name: &str) -> Result<Vec<Block>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let mut blocks: Vec<Block> = Vec::new();
    let parts: Vec<_> = text.split("```").collect();
    for pair in parts.chunks_exact(2) {
        let (kind, text) = pair[1].split_once('\n').context("a block has a kind")?;
        let heading = pair[0].lines().rev().find_map(|line| line.strip_prefix("## "));
        let before = blocks.last().map_or("", |last| last.section.as_str());
        let section = heading.unwrap_or(before).to_owned();
        let paths = pair[0].split('`').skip(1).step_by(2).filter(|word| word.starts_with("/etc/"));
        let path = paths.last().map(Into::into);
        blocks.push(Block { kind: kind.into(), section, path, text: text.into() });
    }
    ensure!(!blocks.is_empty(), "{name} has no blocks");
    Ok(blocks)
}

//! What a fuzz target begins with, put where libFuzzer looks for it. Sound inputs are made by those who write them, at
//! every start: no corpus is kept in the repository, and none grows old. Nothing here depends on what is fuzzed.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Puts the seeds into the corpus that this fuzzer was started with: the first folder of its arguments. Without one (a
/// single input is tried again) there is nothing to do. To be called before libFuzzer reads the corpus.
pub fn plant<S: AsRef<[u8]>>(seeds: impl IntoIterator<Item = S>) {
    if let Some(corpus) = corpus(std::env::args_os()) {
        plant_in(&corpus, seeds).expect("the corpus can be written");
    }
}

fn corpus(arguments: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    arguments.skip(1).map(PathBuf::from).find(|argument| argument.is_dir())
}

/// Under names of their own: what the fuzzer has found stays, and seeds of an older build are replaced.
fn plant_in<S: AsRef<[u8]>>(corpus: &Path, seeds: impl IntoIterator<Item = S>) -> io::Result<()> {
    seeds
        .into_iter()
        .enumerate()
        .try_for_each(|(number, seed)| fs::write(corpus.join(format!("seed-{number:03}")), seed))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_first_folder_behind_the_program_gets_the_seeds() {
        let folder = TempDir::new().expect("a folder");
        let of = |arguments: &[&str]| corpus(arguments.iter().map(OsString::from));
        let path = folder.path().to_str().expect("a path of text");
        assert_eq!(of(&[path, "-runs=1", "/nonexistent/input"]), None);
        assert_eq!(of(&["/fuzzer", "-runs=1", path, "/"]), Some(folder.path().into()));

        fs::write(folder.path().join("found"), "before").expect("a file");
        plant_in(folder.path(), ["older", "gone"]).expect("seeds");
        plant_in(folder.path(), [b"new"]).expect("seeds");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("a file");
        assert_eq!((read("found"), read("seed-000")), ("before".into(), "new".into()));
    }
}

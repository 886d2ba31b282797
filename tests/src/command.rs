//! Real programs, run to their end or in the background, each with a deadline and each in the transcript.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::eventually::eventually;
use crate::place::Place;

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    pub line: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    pub fn success(self) -> Result<Self> {
        ensure!(self.code == 0, "`{}` ended with {}: {}{}", self.line, self.code, self.stderr, self.stdout);
        Ok(self)
    }

    /// Ended with `code` and said `fragment` (any case) on stderr.
    pub fn refused(self, code: i32, fragment: &str) -> Result<Self> {
        let said = self.stderr.to_lowercase();
        ensure!(
            self.code == code && said.contains(&fragment.to_lowercase()),
            "`{}` should end with {code} and say {fragment:?}; it ended with {} and said {:?} {:?}",
            self.line,
            self.code,
            self.stderr,
            self.stdout
        );
        Ok(self)
    }

    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("JSON of `{}`: {:?}", self.line, self.stdout))
    }

    /// The output without the blank at its end.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }
}

impl Place {
    /// Runs a command line (blanks part words, single quotes keep them) to its end; any exit code is fine.
    pub fn run(&self, line: &str) -> Result<Finished> {
        self.run_with(line, b"", RUN)
    }

    pub fn run_with(&self, line: &str, stdin: &[u8], deadline: Duration) -> Result<Finished> {
        self.transcript.note(&format!("{}$ {line}", self.name));
        let finished = self.execute(line, stdin, deadline)?;
        if finished.code != 0 {
            self.transcript.note(&format!("  -> {}: {}", finished.code, finished.stderr.trim_end()));
        }
        Ok(finished)
    }

    /// Runs it and wants exit code 0.
    pub fn sh(&self, line: &str) -> Result<Finished> {
        self.run(line)?.success()
    }

    /// What a command prints, kept out of the transcript: for looking at the lab.
    pub fn look(&self, line: &str) -> Result<String> {
        Ok(self.execute(line, b"", RUN)?.stdout)
    }

    /// Starts a program and leaves it running; its output goes to a file under the lab.
    pub fn start(&self, line: &str) -> Result<Process> {
        self.transcript.note(&format!("{}$ {line} &", self.name));
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let log = Path::new("/run/lab").join(format!("{number}-{}.log", self.name));
        self.start_into(line, &log)
    }

    pub(crate) fn start_into(&self, line: &str, log: &Path) -> Result<Process> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        let err = out.try_clone()?;
        let mut command = self.command(line)?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = self.enter(move || command.spawn())?.with_context(|| format!("start `{line}`"))?;
        self.transcript.watch(log);
        Ok(Process { line: line.into(), pid: child.id(), child: Mutex::new(child), log: log.into() })
    }

    fn execute(&self, line: &str, stdin: &[u8], deadline: Duration) -> Result<Finished> {
        let mut command = self.command(line)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.enter(move || command.spawn())?.with_context(|| format!("start `{line}`"))?;
        let mut to = child.stdin.take().context("stdin is piped")?;
        let (out, err) = (child.stdout.take().context("piped")?, child.stderr.take().context("piped")?);
        std::thread::scope(|scope| {
            let out = scope.spawn(move || drain(out));
            let err = scope.spawn(move || drain(err));
            // A program that does not read its input is free to.
            let _ = to.write_all(stdin);
            drop(to);
            let status = wait_for(&mut child, deadline);
            if status.is_err() {
                child.kill().ok();
                child.wait().ok();
            }
            let stdout = out.join().map_err(|_| anyhow!("reader of `{line}` panicked"))?;
            let stderr = err.join().map_err(|_| anyhow!("reader of `{line}` panicked"))?;
            let status = status.with_context(|| format!("`{line}` said {stdout:?} {stderr:?}"))?;
            Ok(Finished { line: line.into(), code: code(status), stdout, stderr })
        })
    }

    fn command(&self, line: &str) -> Result<Command> {
        let mut words = words(line)?.into_iter();
        let mut command = Command::new(words.next().context("an empty command line")?);
        command.args(words).envs(self.env()).current_dir("/");
        Ok(command)
    }
}

/// A program in the background. It is killed when this is dropped.
pub struct Process {
    line: String,
    pub pid: u32,
    child: Mutex<Child>,
    log: PathBuf,
}

impl Process {
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pid.try_into()?);
        kill(pid, signal).with_context(|| format!("send {signal} to `{}`", self.line))
    }

    pub fn wait(&self, deadline: Duration) -> Result<i32> {
        let mut child = self.child.lock().map_err(|_| anyhow!("a waiter for `{}` panicked", self.line))?;
        Ok(code(
            wait_for(&mut child, deadline).with_context(|| format!("`{}`: {}", self.line, self.output()))?,
        ))
    }

    pub fn runs(&self) -> bool {
        self.child.lock().is_ok_and(|mut child| matches!(child.try_wait(), Ok(None)))
    }

    /// What it has said so far, on both channels.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until it has said `fragment`.
    pub fn says(&self, fragment: &str) -> Result<String> {
        eventually(RUN, &format!("`{}` says {fragment:?}", self.line), || {
            let output = self.output();
            ensure!(output.contains(fragment), "it said {output:?}");
            Ok(output)
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(mut child) = self.child.lock() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn wait_for(child: &mut Child, deadline: Duration) -> Result<ExitStatus> {
    eventually(deadline, "the program ends", || child.try_wait()?.context("it still runs"))
}

/// A signal counts as in the shell.
fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

fn drain(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Parts a line at blanks; a part in single quotes stays whole, its quotes go.
fn words(line: &str) -> Result<Vec<String>> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    if quoted {
        bail!("open quote in `{line}`");
    }
    words.extend(word);
    Ok(words)
}

static STARTED: AtomicU32 = AtomicU32::new(0);
const RUN: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_line_parts_at_blanks_outside_quotes() {
        assert_eq!(words("a  'b c' d''e ''").unwrap(), ["a", "b c", "de", ""]);
        assert!(words("a 'b").is_err());
    }
}

//! One call from beginning to end: environment and stdin in, the result or the error object out, an exit code.
//!
//! stdout belongs to the result, or to the error object: whatever else there is to say goes to stderr.

use std::env;
use std::io::{self, Read, Write};
use std::panic::catch_unwind;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::error::{Code, Failure};
use crate::plugin::{Plugin, netavark};
use crate::spec::{Command, Config, Version};

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = env::args_os();
    if let Some(code) = arguments.next().and_then(|program| netavark::called(&program, arguments)) {
        return code;
    }
    // A panic must not leave the runtime without an error object; its message is on stderr by then.
    let (said, code) = match catch_unwind(run) {
        Ok(Ok(said)) => (said, ExitCode::SUCCESS),
        Ok(Err((version, failure))) => (Some(failure.object(version)), ExitCode::FAILURE),
        Err(_) => {
            let failure = Failure::new(Code::Internal, "the plugin has failed", "see its standard error");
            (Some(failure.object(Version::NEWEST)), ExitCode::FAILURE)
        }
    };
    let Some(said) = said else { return code };
    match writeln!(io::stdout().lock(), "{said}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// What stdout is to say. A failure comes with the version that its object is to carry.
fn run() -> Result<Option<Value>, (Version, Failure)> {
    let by_itself = |failure| (Version::NEWEST, failure);
    let plugin = Plugin::called(&env::args_os().next().unwrap_or_default());
    let (verb, environment) = match Command::read(|key| env::var_os(key)).map_err(by_itself)? {
        Command::About => {
            about(plugin);
            return Ok(None);
        }
        // Before stdin is touched: a runtime may leave it open.
        Command::Version => return Ok(Some(versions())),
        Command::Call(verb, environment) => (verb, environment),
    };
    let text = input().map_err(by_itself)?;
    let config = Config::read(&text).map_err(by_itself)?;
    plugin.run(verb, &environment, config)
}

/// Runtimes read the first line to learn what a plugin can do.
fn about(plugin: Plugin) {
    let all: Vec<&str> = Version::ALL.into_iter().map(Version::as_str).collect();
    eprintln!("CNI {} plugin v{}", plugin.name(), plugin.version());
    eprintln!("CNI protocol versions supported: {}", all.join(", "));
}

fn versions() -> Value {
    json!({
        "cniVersion": Version::NEWEST.as_str(),
        "supportedVersions": Version::ALL.map(Version::as_str),
    })
}

pub(crate) fn input() -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let read = io::stdin().lock().take(LONGEST + 1).read_to_end(&mut text);
    if let Err(error) = read {
        return Err(Failure::new(Code::Io, "cannot read the configuration from stdin", error.to_string()));
    }
    if text.len() as u64 > LONGEST {
        let detail = format!("it has more than {LONGEST} bytes");
        return Err(Failure::new(Code::Decoding, "the configuration on stdin is too long", detail));
    }
    Ok(text)
}

/// Much more than a configuration with the results of a long chain.
const LONGEST: u64 = 4 << 20;

//! Runtimes' calls of the plugin, word for word: `fixtures/cni` has a file a client and version, with the environment and
//! stdin of each call and what has to come of it. Prints a table: `cargo test --test conformance -- --nocapture`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::cni::{Container, sandboxes_become};
use netd_tests::{Daemon, Finished, Process, scenario};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Client {
    client: String,
    netns: Namespace,
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Namespace {
    /// Mounted below /run/netns.
    Named,
    /// That of a process, below /proc.
    Process,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    call: String,
    /// By another of its names.
    #[serde(default = "own_name")]
    program: String,
    env: Map<String, Value>,
    stdin: Value,
    /// Of the error; none: it succeeds.
    code: Option<u64>,
    /// By JSON pointer, what stdout has to have.
    #[serde(default)]
    has: Map<String, Value>,
    #[serde(default)]
    lacks: Vec<String>,
}

fn own_name() -> String {
    "netd-cni".into()
}

/// What stands behind the words in @ of a fixture.
struct Words {
    netns: String,
    socket: String,
    spool: String,
    /// Of the last ADD.
    result: Value,
}

impl Words {
    fn put(&self, value: &Value) -> Value {
        match value {
            Value::String(text) if text == "@RESULT@" => self.result.clone(),
            Value::String(text) => self.text(text).into(),
            Value::Array(items) => items.iter().map(|item| self.put(item)).collect(),
            Value::Object(members) => {
                members.iter().map(|(key, item)| (key.clone(), self.put(item))).collect()
            }
            other => other.clone(),
        }
    }

    fn text(&self, text: &str) -> String {
        let words = [("@NETNS@", &self.netns), ("@SOCKET@", &self.socket), ("@SPOOL@", &self.spool)];
        words.iter().fold(text.to_owned(), |text, (word, meant)| text.replace(word, meant))
    }
}

#[test]
fn every_client_is_served_as_it_speaks() {
    scenario(|lab| {
        let netd = lab.host("n1")?.daemon()?;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/cni");
        let mut files: Vec<_> =
            fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        files.sort();
        ensure!(files.len() > 5, "the fixtures are in {}", folder.display());
        let (mut table, mut wrong) = (String::new(), 0);
        for (number, file) in files.iter().enumerate() {
            let text = fs::read_to_string(file)?;
            let client: Client =
                serde_json::from_str(&text).with_context(|| format!("read {}", file.display()))?;
            table += &format!("\n{}\n", client.client);
            for (call, verdict) in all_of(&netd, number, &client)? {
                let (mark, cause) = match verdict {
                    Ok(()) => ("ok   ", String::new()),
                    Err(error) => {
                        wrong += 1;
                        ("WRONG", format!(": {error:#}"))
                    }
                };
                table += &format!("  {mark}  {call}{cause}\n");
            }
            sandboxes_become(&netd, 0).with_context(|| format!("{} leaves something", client.client))?;
        }
        println!("{table}");
        ensure!(wrong == 0, "{wrong} calls went wrong: {table}");
        Ok(())
    });
}

fn all_of<'a>(netd: &Daemon, number: usize, client: &'a Client) -> Result<Vec<(&'a str, Result<()>)>> {
    let (container, process) = namespace(netd, number, client.netns)?;
    let mut words = Words {
        netns: container.netns.clone(),
        socket: netd.socket().display().to_string(),
        spool: netd.state_dir().join("cni-spool").display().to_string(),
        result: Value::Null,
    };
    let verdicts = client.steps.iter().map(|step| (&*step.call, one(netd, step, &mut words))).collect();
    match process {
        Some(process) => drop(process),
        None => container.unmount()?,
    }
    Ok(verdicts)
}

fn namespace<'a>(
    netd: &'a Daemon,
    number: usize,
    kind: Namespace,
) -> Result<(Container<'a>, Option<Process>)> {
    let id = format!("client{number}");
    Ok(match kind {
        Namespace::Named => (Container::new(netd, &id)?, None),
        Namespace::Process => {
            let (container, process) = Container::of_process(netd, &id)?;
            (container, Some(process))
        }
    })
}

fn one(netd: &Daemon, step: &Step, words: &mut Words) -> Result<()> {
    let mut place = netd.place.clone();
    for (key, value) in &step.env {
        place = place.with_env(key, words.text(value.as_str().context("variables are texts")?));
    }
    let stdin = words.put(&step.stdin).to_string();
    let program = program(netd, &step.program)?;
    let done = place.run_with(&program, stdin.as_bytes(), Duration::from_secs(20))?;
    let said = judge(&done, step, words)?;
    if step.env.get("CNI_COMMAND").is_some_and(|verb| verb == "ADD") && done.code == 0 {
        words.result = said;
    }
    Ok(())
}

/// The plugin goes by the name it is started under.
fn program(netd: &Daemon, name: &str) -> Result<String> {
    if name == own_name() {
        return Ok(own_name());
    }
    let link = Path::new("/run/lab").join(name);
    if !link.exists() {
        let own = netd.place.sh("which netd-cni")?;
        std::os::unix::fs::symlink(own.text(), &link)?;
    }
    Ok(link.display().to_string())
}

fn judge(done: &Finished, step: &Step, words: &Words) -> Result<Value> {
    match step.code {
        None => ensure!(done.code == 0, "it failed: {} {}", done.stdout, done.stderr),
        Some(code) => {
            let error = done.json()?;
            ensure!(done.code != 0 && error["code"] == code, "it should fail with {code}: {done:?}");
            ensure!(error["msg"].is_string() && error["cniVersion"].is_string(), "no error object: {error}");
        }
    }
    let silent = ["CHECK", "DEL", "GC", "STATUS"]
        .iter()
        .any(|verb| step.env.get("CNI_COMMAND").is_some_and(|own| own == verb));
    if silent && step.code.is_none() {
        ensure!(done.stdout.is_empty(), "it should print nothing: {}", done.stdout);
        return Ok(Value::Null);
    }
    let said = done.json()?;
    for (pointer, wanted) in &step.has {
        let found = said.pointer(pointer);
        ensure!(found == Some(&words.put(wanted)), "{pointer} should be {wanted}: {said}");
    }
    for pointer in &step.lacks {
        ensure!(said.pointer(pointer).is_none(), "{pointer} should not be there: {said}");
    }
    Ok(said)
}

//! The pages in docs: what they tell people to write and to type works, in their order.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netd_tests::runtimes::{Containerd, Dockerd, Podman, Site, write};
use netd_tests::{Place, eventually, scenario};
use serde_json::json;

struct Block {
    kind: String,
    /// The last path that the text before it names: where a file goes.
    path: Option<String>,
    text: String,
}

fn page(name: &str) -> Result<Vec<Block>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let mut blocks = Vec::new();
    let parts: Vec<_> = text.split("```").collect();
    for pair in parts.chunks_exact(2) {
        let (kind, text) = pair[1].split_once('\n').context("a block has a kind")?;
        let paths = pair[0].split('`').skip(1).step_by(2).filter(|word| word.starts_with("/etc/"));
        blocks.push(Block { kind: kind.into(), path: paths.last().map(Into::into), text: text.into() });
    }
    ensure!(!blocks.is_empty(), "{name} has no blocks");
    Ok(blocks)
}

/// Line by line, as one types it.
fn follow(page: &[Block], place: &Place) -> Result<()> {
    for block in page {
        if block.kind == "sh" {
            block.text.lines().try_for_each(|line| type_in(place, line))?;
        } else if let Some(path) = &block.path {
            write(path, &block.text)?;
        }
    }
    Ok(())
}

fn type_in(place: &Place, line: &str) -> Result<()> {
    // The lab's cgroups have no controller to take a share of the processor from.
    let line = line.replacen("ctr run ", "ctr run --cpu-shares 0 ", 1);
    let run = || place.run_with(&line, b"", Duration::from_secs(40))?.success().map(drop);
    // A network goes as soon as the containers have.
    if line.starts_with("netd network rm ") { eventually(Duration::from_secs(10), &line, run) } else { run() }
}

#[test]
fn the_page_on_podman_works() {
    scenario(|lab| {
        let site = Site::new(lab)?;
        let page = page("podman.md")?;
        let podman = Podman::new(&site, &page[0].text)?;
        follow(&page, &podman.place)?;
        podman.left_nothing()
    });
}

#[test]
fn the_page_on_containerd_works() {
    scenario(|lab| {
        let site = Site::new(lab)?;
        let containerd = Containerd::start(&site)?;
        follow(&page("containerd.md")?, &containerd.place)?;
        eventually(Duration::from_secs(10), "the container is taken off", || site.left_nothing())?;
        containerd.stop()
    });
}

#[test]
fn the_page_on_docker_works() {
    scenario(|lab| {
        let page = page("docker.md")?;
        let site = Site::with(lab, &page[0].text)?;
        // Docker's own limits are more than this machine lets anybody have.
        let limit = |name: &str| json!({ "Name": name, "Hard": 20_000, "Soft": 20_000 });
        let limits = json!({ "nofile": limit("nofile"), "nproc": limit("nproc") });
        write("/etc/docker/daemon.json", &json!({ "default-ulimits": limits }).to_string())?;
        let docker = Dockerd::start(&site)?;
        follow(&page, &docker.place)?;
        docker.stop()?;
        site.left_nothing()
    });
}

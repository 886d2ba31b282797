//! The pages in docs: what they tell people to write and to type works, in their order.

use std::time::Duration;

use anyhow::Result;
use netd_tests::page::{self, Block};
use netd_tests::runtimes::{Containerd, Dockerd, Podman, Site, write};
use netd_tests::{Place, eventually, scenario};
use serde_json::json;

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
        let blocks = page::read("podman.md")?;
        let podman = Podman::new(&site, &blocks[0].text)?;
        follow(&blocks, &podman.place)?;
        podman.left_nothing()
    });
}

#[test]
fn the_page_on_containerd_works() {
    scenario(|lab| {
        let site = Site::new(lab)?;
        let containerd = Containerd::start(&site)?;
        follow(&page::read("containerd.md")?, &containerd.place)?;
        eventually(Duration::from_secs(10), "the container is taken off", || site.left_nothing())?;
        containerd.stop()
    });
}

#[test]
fn the_page_on_docker_works() {
    scenario(|lab| {
        let blocks = page::read("docker.md")?;
        let site = Site::with(lab, &blocks[0].text)?;
        // Docker's own limits are more than this machine lets anybody have.
        let limit = |name: &str| json!({ "Name": name, "Hard": 20_000, "Soft": 20_000 });
        let limits = json!({ "nofile": limit("nofile"), "nproc": limit("nproc") });
        write("/etc/docker/daemon.json", &json!({ "default-ulimits": limits }).to_string())?;
        let docker = Dockerd::start(&site)?;
        follow(&blocks, &docker.place)?;
        docker.stop()?;
        site.left_nothing()
    });
}

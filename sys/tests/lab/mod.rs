//! A machine of its own for each test: a thread with a fresh network and mount namespace and an empty `/run`. All of
//! it goes away with the thread.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::panic;
use std::process::{Command, Output};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

pub(crate) fn machine(test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let outcome = scope
            .spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("these tests need root");
                let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
                mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("make / private");
                mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>)
                    .expect("mount /run");
                run("ip link set lo up");
                test();
            })
            .join();
        if let Err(cause) = outcome {
            panic::resume_unwind(cause);
        }
    });
}

/// What a user's command prints; it must succeed.
pub(crate) fn run(command: &str) -> String {
    let output = attempt(command);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn attempt(command: &str) -> Output {
    Command::new("sh").arg("-c").arg(command).output().expect("sh runs")
}

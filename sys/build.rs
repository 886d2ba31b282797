//! Compiles the BPF programs, which become part of the library. The feature `bpf` switches that off.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

const SOURCES: [&str; 3] = ["steer", "eastwest", "overlay"];

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed=CLANG");
    for name in SOURCES {
        println!("cargo::rerun-if-changed={}", source(name));
    }
    if env::var_os("CARGO_FEATURE_BPF").is_none() {
        return ExitCode::SUCCESS;
    }
    for name in SOURCES {
        if let Err(cause) = compile(name) {
            println!("cargo::error=cannot compile {}: {cause}", source(name));
            println!(
                "cargo::error=install clang (Debian: `apt-get install clang`, or `scripts/setup.sh build`), name it in \
                 the variable CLANG, or build with --no-default-features: without BPF, published ports are steered by \
                 nftables, every connection to a service goes through the relay, and overlay traffic through bridges"
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn source(name: &str) -> String {
    format!("bpf/{name}.bpf.c")
}

fn compile(name: &str) -> Result<(), String> {
    let variable = |name: &str| env::var(name).map_err(|error| format!("{name}: {error}"));
    let target = match variable("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb",
        _ => "bpfel",
    };
    let object = PathBuf::from(variable("OUT_DIR")?).join(format!("{name}.bpf.o"));
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let status = Command::new(&clang)
        .args(["-target", target, "-O2", "-Wall", "-Werror", "-c", &source(name), "-o"])
        .arg(&object)
        .status()
        .map_err(|error| format!("cannot run {clang}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{clang}: {status}")) }
}

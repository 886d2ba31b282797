//! `netd-cni`: see the library, which the fuzz target shares with this program.

use std::process::ExitCode;

fn main() -> ExitCode {
    netd_cni::main()
}

//! The program: all of it is in the library beside it, so that fuzz targets reach what reads bytes of doubtful origin.

fn main() -> std::process::ExitCode {
    netd::main()
}

//! `ironroot-server`: everything is in the library; `ironroot-server --help` tells what there is.

fn main() -> std::process::ExitCode {
    ironroot_server::cli::main()
}

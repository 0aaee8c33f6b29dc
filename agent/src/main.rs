//! `ironroot-agent`: everything is in the library; `ironroot-agent --help` tells what there is.

fn main() -> std::process::ExitCode {
    ironroot_agent::cli::main()
}

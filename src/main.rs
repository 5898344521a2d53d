//! The `ecr-sidecar` program.

fn main() -> std::process::ExitCode {
    ecr_sidecar::cli::main()
}

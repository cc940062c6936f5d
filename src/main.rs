//! The program is the library; this hands it the command line.
fn main() -> std::process::ExitCode {
    settled::cli::main(std::env::args_os())
}

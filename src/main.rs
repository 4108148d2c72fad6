//! The `sockwatch` program; everything it does is in the library.

fn main() -> std::process::ExitCode {
    sockwatch::cli::main()
}

//! The `tollbridge` program: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    tollbridge::cli::main()
}

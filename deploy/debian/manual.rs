//! Writes the man pages and the completions of the package into the directory that is its argument.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap_complete::Shell;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("the directory to write to is missing")?);
    let pages = directory.join("man");
    fs::create_dir_all(&pages)?;
    let commands = tollbridge::cli::commands();
    clap_mangen::generate_to(commands.clone(), &pages)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut commands.clone(), "tollbridge", &directory)?;
    }
    Ok(())
}

//! What is made from the command line's own description: completions and manual pages.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::Cli;
use crate::failure::Failure;

#[derive(Debug, Clone, Args)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn print(&self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "ashlar", &mut script);
        Ok(io::stdout().write_all(&script)?)
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Man {
    /// The folder to write them to; it is made where it is not there
    folder: PathBuf,
}

impl Man {
    pub(crate) fn write(&self) -> Result<(), Failure> {
        let write = || {
            fs::create_dir_all(&self.folder)?;
            clap_mangen::generate_to(Cli::command(), &self.folder)
        };
        write().map_err(|error| Failure::file(&self.folder, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_manual_page_for_every_verb_and_the_first_tells_the_exit_codes() {
        let folder = tempfile::tempdir().unwrap();
        Man {
            folder: folder.path().join("man"),
        }
        .write()
        .unwrap();
        let page = fs::read_to_string(folder.path().join("man/ashlar.1")).unwrap();
        assert!(page.contains("Exit codes"));
        assert!(folder.path().join("man/ashlar-volume-create.1").exists());
    }
}

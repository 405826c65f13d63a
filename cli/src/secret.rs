//! Passwords: asked for on the terminal, or read from a file. Never an argument, never shown.

use std::fs;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::failure::Failure;

#[derive(Debug, Clone, Args)]
pub(crate) struct PasswordFrom {
    /// Read the password from the first line of this file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl PasswordFrom {
    /// A password that is known already.
    pub(crate) fn known(&self, prompt: &str) -> Result<String, Failure> {
        match &self.password_file {
            Some(path) => from_file(path),
            None => ask(prompt),
        }
    }

    /// A password to be set: typed twice where it is typed.
    pub(crate) fn chosen(&self, prompt: &str) -> Result<String, Failure> {
        let first = self.known(prompt)?;
        if self.password_file.is_none() && ask("Once more: ")? != first {
            return Err(Failure::usage("the two passwords differ"));
        }
        Ok(first)
    }
}

/// Asks for something that is not shown.
pub(crate) fn ask(prompt: &str) -> Result<String, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(
            "there is no terminal to ask for the password: give --password-file FILE, or `-`",
        ));
    }
    Ok(rpassword::prompt_password(prompt)?)
}

fn from_file(path: &Path) -> Result<String, Failure> {
    let read = if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(path)
    };
    let text = read.map_err(|error| Failure::file(path, error))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Asks for a line.
pub(crate) fn ask_line(prompt: &str) -> Result<String, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!("there is no terminal to ask: {prompt}")));
    }
    write!(io::stderr(), "{prompt}")?;
    let mut text = String::new();
    io::stdin().read_line(&mut text)?;
    Ok(text.trim().to_owned())
}

/// Asks whether to go on, on a terminal; elsewhere the command itself says so.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes || !io::stdin().is_terminal() {
        return Ok(());
    }
    let answer = ask_line(&format!("{question} [y/N] "))?;
    if matches!(answer.as_str(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::Declined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, "correct horse \nbattery").unwrap();
        assert_eq!(from_file(&path).unwrap(), "correct horse ");
        fs::write(&path, "").unwrap();
        assert_eq!(from_file(&path).unwrap(), "");
        assert!(matches!(
            from_file(&folder.path().join("none")),
            Err(Failure::File { .. })
        ));
    }
}

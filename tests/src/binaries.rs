//! Where the programs under test are: built once per test process, found by what cargo says it built.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::process::run;

/// The engine's binary; another one, an installed one for example, where `ASHLAR_ENGINE` names it.
pub fn engine() -> Command {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    Command::new(PATH.get_or_init(|| built("ASHLAR_ENGINE", ["--bin", "ashlar-engine"])))
}

/// The test server that drops what was not flushed when it is killed (`ASHLAR_FORGETFUL_NBD` names another).
pub fn forgetful_nbd() -> Command {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    Command::new(PATH.get_or_init(|| built("ASHLAR_FORGETFUL_NBD", ["--example", "forgetful_nbd"])))
}

/// The path in the environment variable, or what cargo builds for `target`.
fn built(variable: &str, target: [&str; 2]) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let messages = run(Command::new(cargo)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["build", "--quiet", "--message-format=json", "-p", "ashlar-engine"])
        .args(target))
    .stdout;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == target[1])
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .unwrap_or_else(|| panic!("cargo built no executable for {target:?}"))
}

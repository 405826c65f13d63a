//! Where the programs under test are: built once per test process, found by what cargo says it built.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::process::run;

/// The engine's binary; another one, an installed one for example, where `ASHLAR_ENGINE` names it.
pub fn engine() -> Command {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    Command::new(PATH.get_or_init(|| named("ASHLAR_ENGINE").unwrap_or_else(|| built("ashlar-engine"))))
}

/// The appliance's program; another one where `ASHLAR_PROGRAM` names it.
pub fn ashlar() -> Command {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    Command::new(PATH.get_or_init(|| named("ASHLAR_PROGRAM").unwrap_or_else(|| built("ashlar"))))
}

/// The test server that drops what was not flushed when it is killed; `ASHLAR_FORGETFUL_NBD` names another.
pub fn forgetful_nbd() -> Command {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    Command::new(PATH.get_or_init(|| named("ASHLAR_FORGETFUL_NBD").unwrap_or_else(|| built("forgetful_nbd"))))
}

fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

/// Builds all programs, in the way that the tests themselves are built so that nothing is compiled twice, and finds
/// the one of this name.
fn built(name: &str) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args([
            "build",
            "--quiet",
            "--message-format=json",
            "--workspace",
            "--bins",
            "--examples",
        ]);
    // What is set for this package: build scripts that look at it would run again, and all that needs them with them.
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        if name.starts_with("CARGO_MANIFEST_") || name.starts_with("CARGO_PKG_") || name == "OUT_DIR" {
            build.env_remove(&variable);
        }
    }
    let messages = run(&mut build).stdout;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .unwrap_or_else(|| panic!("cargo built no program {name}"))
}

//! What surrounds the programs and no compiler checks: what is linked, what the guides point to, what the service is
//! started with.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace")
        .to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The guides, as paths from the root.
fn guides() -> Vec<String> {
    let mut found: Vec<String> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]
        .map(str::to_owned)
        .to_vec();
    for folder in ["docs", "docs/formats", "docs/decisions"] {
        for entry in fs::read_dir(root().join(folder)).expect("the folder can be listed") {
            let name = entry.expect("the folder can be listed").file_name();
            let name = name.to_string_lossy().into_owned();
            if name.ends_with(".md") {
                found.push(format!("{folder}/{name}"));
            }
        }
    }
    assert!(found.len() > 8, "{found:?}");
    found
}

/// What follows each `mark`, up to the first character that `ends` it.
fn after<'a>(text: &'a str, mark: &str, ends: impl Fn(char) -> bool) -> Vec<&'a str> {
    let parts = text.split(mark).skip(1);
    parts
        .map(|part| &part[..part.find(&ends).unwrap_or(part.len())])
        .collect()
}

#[test]
fn one_cryptographic_library_is_linked() {
    let lock = read("Cargo.lock");
    assert!(lock.contains("name = \"ring\""));
    for other in ["aws-lc-rs", "aws-lc-sys", "openssl-sys", "native-tls"] {
        assert!(
            !lock.contains(&format!("name = \"{other}\"")),
            "`cargo tree --invert {other}` says who brings it: choose that crate's feature for ring"
        );
    }
}

#[test]
fn links_in_the_guides_lead_to_files() {
    let mut broken = Vec::new();
    let mut checked = 0;
    for guide in guides() {
        let folder = root().join(&guide).parent().unwrap().to_owned();
        let text = read(&guide);
        for link in after(&text, "](", |c| c == ')' || c == '#') {
            if link.is_empty() || link.contains("://") {
                continue;
            }
            checked += 1;
            if !folder.join(link).exists() {
                broken.push(format!("{guide}: {link}"));
            }
        }
    }
    assert!(checked > 5, "links were looked for in vain");
    assert!(broken.is_empty(), "{broken:?}");
}

#[test]
fn what_the_guides_have_made_can_be_made() {
    let makefile = read("Makefile");
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(target, _)| target)
        .collect();
    let mut unknown = Vec::new();
    let mut checked = 0;
    for guide in guides() {
        let text = read(&guide);
        // As code, or as a line of a shell.
        for mark in ["`make ", "\n    make ", "\n    $ make "] {
            for target in after(&text, mark, |c: char| !(c.is_ascii_lowercase() || c == '-')) {
                checked += 1;
                if !target.is_empty() && !targets.contains(target) {
                    unknown.push(format!("{guide}: make {target}"));
                }
            }
        }
    }
    assert!(checked > 5, "commands were looked for in vain");
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn the_service_is_given_only_what_the_program_takes() {
    let (serve, connect) = (read("cli/src/serve.rs"), read("cli/src/connect.rs"));
    let environment = read("packaging/ashlar.env");
    let names = after(&environment, "\n#ASHLAR_", |c: char| c == '=');
    assert!(names.contains(&"LISTEN"), "{names:?}");
    for name in names.iter().filter(|name| **name != "OPTIONS") {
        assert!(serve.contains(&format!("\"ASHLAR_{name}\"")), "ASHLAR_{name}");
    }
    let unit = read("packaging/ashlar.service");
    assert!(unit.contains("/usr/bin/ashlar serve --data /var/lib/ashlar $ASHLAR_OPTIONS"));
    assert!(connect.contains("const SYSTEM_DATA: &str = \"/var/lib/ashlar\""));
}

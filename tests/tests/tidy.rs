//! What the compiler does not check: which module may import which, length of files, words that must not stay, and
//! files that no `mod` line reaches.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules of the engine a module may import. Data goes down, control comes from the side: a host's write
/// passes `export`, `volume`, `map`, `logical_device`, `raid`, `device` in this order, and nothing calls upward.
/// A module that is not listed has no place yet: add it where it belongs, see ARCHITECTURE.md.
const MAY_IMPORT: &[(&str, &str)] = &[
    ("types", ""),
    ("io", "types"),
    ("planted", ""),
    ("statistics", ""),
    ("nbd", "types io"),
    ("device", "types io planted nbd statistics"),
    ("runtime", "types io device"),
    ("metadata", "types io planted device"),
    ("raid", "types io planted device metadata"),
    ("logical_device", "types io planted device metadata raid"),
    ("map", "types io planted metadata logical_device"),
    (
        "volume",
        "types io planted statistics metadata raid logical_device map",
    ),
    ("export", "types io planted nbd statistics volume"),
    ("event", "types raid"),
    (
        "appliance",
        "types io planted nbd statistics device runtime metadata raid logical_device map volume export event",
    ),
    // The simulation stands outside and looks at everything.
    (
        "sim",
        "types io planted nbd statistics device runtime metadata raid logical_device map volume export event appliance",
    ),
];

/// Lines of a file without its unit tests, and with them.
const MAX_LINES: usize = 600;
const MAX_LINES_WITH_TESTS: usize = 1000;

/// Kinds of files that are read for words.
const TEXT: &[&str] = &["rs", "py", "sh", "md", "toml", "yml", ""];
const SKIPPED: &[&str] = &[
    "target",
    ".git",
    "corpus",
    "artifacts",
    "data",
    "Cargo.lock",
    "LICENSE",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests lie in the workspace")
        .to_owned()
}

/// All files below `dir`, without build products.
fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    for entry in entries {
        let path = entry.expect("a folder can be listed").path();
        let name = path.file_name().expect("entries have names").to_string_lossy();
        if SKIPPED.contains(&&*name) {
            continue;
        }
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

fn rust_files(dir: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&root().join(dir), &mut found);
    found.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The text before the unit tests, which stand at a file's end.
fn without_tests(text: &str) -> &str {
    let begins = |at: usize| text[at..].lines().nth(2).is_some_and(|line| line.ends_with('{'));
    let tests = text
        .match_indices("\n#[cfg(test)]\nmod ")
        .find(|(at, _)| begins(*at));
    tests.map_or(text, |(at, _)| &text[..at])
}

/// Tests beside the code, and the crates and folders that are tests.
fn is_test(path: &Path) -> bool {
    let below = path.strip_prefix(root()).unwrap_or(path);
    let inside = below.components().any(|part| {
        ["tests", "benches", "examples"]
            .iter()
            .any(|dir| part.as_os_str() == *dir)
    });
    inside || is_unit_tests(path)
}

/// Whether a file beside the code is declared for tests only, or the folder that it is in.
fn is_unit_tests(path: &Path) -> bool {
    let (Some(dir), Some(stem)) = (path.parent(), path.file_stem()) else {
        return false;
    };
    if dir != root() && is_unit_tests(dir) {
        return true;
    }
    let declaration = format!("mod {};", stem.to_string_lossy());
    let parents = [dir.join("mod.rs"), dir.join("lib.rs"), dir.with_extension("rs")];
    parents
        .iter()
        .filter_map(|parent| fs::read_to_string(parent).ok())
        .any(|text| {
            let lines: Vec<&str> = text.lines().collect();
            lines
                .windows(2)
                .any(|pair| pair[0] == "#[cfg(test)]" && pair[1].ends_with(&declaration))
        })
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// The module of the engine that a file belongs to; `None` for the crate's root and for binaries.
fn module_of(path: &Path) -> Option<String> {
    let below = path
        .strip_prefix(root().join("engine/src"))
        .expect("a file of the engine");
    let first = below
        .iter()
        .next()
        .expect("a file has a name")
        .to_string_lossy()
        .into_owned();
    match first.as_str() {
        "lib.rs" | "main.rs" | "bin" => None,
        name => Some(name.trim_end_matches(".rs").to_owned()),
    }
}

/// How many times `super::` leads from a file's module to the crate's root.
fn depth(path: &Path) -> usize {
    let below = path
        .strip_prefix(root().join("engine/src"))
        .expect("a file of the engine");
    below.components().count() - usize::from(path.ends_with("mod.rs"))
}

/// The first names after `crate::`, also of a group in braces.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$') {
            continue;
        }
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(heads_of_group(group)),
            None => found.push(identifier(rest)),
        }
    }
    found
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
        .collect()
}

/// What `a::b, c::{d, e}}` begins with at its own level: `a`, `c`.
fn heads_of_group(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut at_head) = (0, Vec::new(), true);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_head = true,
            _ if at_head && !letter.is_whitespace() => {
                heads.push(identifier(&group[at..]));
                at_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn no_module_of_the_engine_imports_one_above_it() {
    let mut problems = Vec::new();
    for path in rust_files("engine/src") {
        let Some(module) = module_of(&path).filter(|_| !is_test(&path)) else {
            continue;
        };
        let text = read(&path);
        let code: String = without_tests(&text)
            .lines()
            .filter(|line| !is_comment(line))
            .flat_map(|line| [line, "\n"])
            .collect();
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            problems.push(format!(
                "{}: module `{module}` has no place in MAY_IMPORT",
                shown(&path)
            ));
            continue;
        };
        let is_allowed = |name: &str| name == module || allowed.split_whitespace().any(|other| other == name);
        let forbidden = imports(&code).into_iter().filter(|name| !is_allowed(name));
        problems
            .extend(forbidden.map(|name| format!("{}: `{module}` must not import `{name}`", shown(&path))));
        if code.contains(&"super::".repeat(depth(&path))) {
            problems.push(format!(
                "{}: write `crate::…` for what is outside `{module}`",
                shown(&path)
            ));
        }
    }
    none(&problems);
}

#[test]
fn files_are_short_enough_to_hold_one_idea() {
    let mut problems = Vec::new();
    for path in ["engine", "tests", "fuzz"]
        .into_iter()
        .filter(|dir| root().join(dir).is_dir())
        .flat_map(rust_files)
    {
        let text = read(&path);
        let (all, code) = (text.lines().count(), without_tests(&text).lines().count());
        if all > MAX_LINES_WITH_TESTS || code > MAX_LINES && !is_test(&path) {
            problems.push(format!("{}: {code} lines of code, {all} in all", shown(&path)));
        }
    }
    none(&problems);
}

#[test]
fn every_module_says_what_it_is_for() {
    let files = ["engine", "tests"]
        .into_iter()
        .flat_map(rust_files)
        .filter(|path| !is_unit_tests(path));
    let silent = files
        .filter(|path| !read(path).starts_with("//!"))
        .map(|path| format!("{}: no `//!` at its head", shown(&path)));
    none(&silent.collect::<Vec<_>>());
}

/// Words, each put together here so that this file does not hold it, and where they must not stand.
fn banned_words(path: &Path) -> Vec<String> {
    let rust = path.extension().is_some_and(|extension| extension == "rs");
    let engine = path.starts_with(root().join("engine/src")) && module_of(path).is_some();
    let library = rust && (engine || path.starts_with(root().join("server/src"))) && !is_test(path);
    let simulation = path.starts_with(root().join("engine/src/sim"));
    let mut words = vec![["TO", "DO"], ["FIX", "ME"], ["/wo", "rk/"]];
    if rust {
        words.extend([["to", "do!("], ["un", "implemented!("], ["db", "g!("]]);
        // Opening a file that a killed process still holds for a moment is the one wait without an event.
        if !path.ends_with("device/local.rs") {
            words.push(["thread::", "sleep"]);
        }
    }
    if library {
        words.push([".unwr", "ap()"]);
    }
    if library && !simulation {
        // The simulation prints its trace; nothing else in the library prints.
        words.push(["print", "ln!("]);
    }
    words.iter().map(|word| word.concat()).collect()
}

#[test]
fn words_that_must_not_stay_are_nowhere() {
    let mut all = Vec::new();
    files(&root(), &mut all);
    let mut problems = Vec::new();
    for path in all {
        let extension = path
            .extension()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let Some(text) = TEXT
            .contains(&extension.as_str())
            .then(|| fs::read_to_string(&path).ok())
            .flatten()
        else {
            continue;
        };
        let banned = banned_words(&path);
        for (number, line) in without_tests(&text).lines().enumerate() {
            let found = banned.iter().filter(|word| line.contains(word.as_str()));
            problems.extend(found.map(|word| format!("{}:{}: {word}", shown(&path), number + 1)));
        }
    }
    none(&problems);
}

#[test]
fn every_file_is_reached_by_a_mod_line() {
    let mut problems = Vec::new();
    for crate_dir in ["engine/src", "server/src", "tests/src"] {
        let all: BTreeSet<PathBuf> = rust_files(crate_dir).into_iter().collect();
        let base = root().join(crate_dir);
        let is_root = |path: &&PathBuf| {
            ["lib.rs", "main.rs"].iter().any(|name| **path == base.join(name))
                || path.starts_with(base.join("bin"))
        };
        let mut pending: Vec<PathBuf> = all.iter().filter(is_root).cloned().collect();
        let mut reached = BTreeSet::new();
        while let Some(path) = pending.pop() {
            pending.extend(declared(&path).into_iter().filter(|file| all.contains(file)));
            reached.insert(path);
        }
        problems.extend(
            all.difference(&reached)
                .map(|path| format!("{}: no `mod` line reaches it", shown(path))),
        );
    }
    none(&problems);
}

/// Files that the `mod name;` lines of a file may mean.
fn declared(path: &Path) -> Vec<PathBuf> {
    let stem = path.file_stem().expect("a file has a name").to_string_lossy();
    let parent = path.parent().expect("a file lies in a folder");
    let dir = if ["lib", "main", "mod"].contains(&&*stem) {
        parent.to_owned()
    } else {
        parent.join(&*stem)
    };
    let text = read(path);
    let lines = text
        .lines()
        .map(str::trim)
        .filter_map(|line| line.strip_suffix(';'));
    let names = lines.filter_map(|line| {
        line.split_once("mod ")
            .filter(|(before, _)| before.is_empty() || before.starts_with("pub"))
    });
    names
        .flat_map(|(_, name)| [dir.join(format!("{name}.rs")), dir.join(name).join("mod.rs")])
        .collect()
}

#[test]
fn unit_tests_are_cut_off_and_their_declaration_is_not() {
    let declared = "use a;\n#[cfg(test)]\nmod tests;\nuse b;";
    assert_eq!(without_tests(declared), declared);
    assert_eq!(
        without_tests("use a;\n#[cfg(test)]\nmod tests {\n    use b;\n}"),
        "use a;"
    );
}

#[test]
fn imports_are_found_in_every_form() {
    let code = "use crate::a::B;\nuse crate::{\n    c::{D, e::F},\n    g,\n};\nfn f(x: crate::h::I) { $crate::not; my_crate::not() }";
    assert_eq!(imports(code), ["a", "c", "g", "h"]);
}

//! `docs/api.md` against the contract: its list of problems is the closed list, and every resource has a section.

use std::collections::BTreeSet;

use ashlar_openapi::problem::PREFIX;
use ashlar_openapi::{ProblemType, operations};

fn guide() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md");
    std::fs::read_to_string(path).expect("the guide stands in the repository")
}

#[test]
fn the_guide_lists_every_problem_and_no_other() {
    let row = |kind: &ProblemType| {
        let name = kind.uri().strip_prefix(PREFIX).unwrap();
        format!("| `{name}` | {} | {} |", kind.status(), kind.title())
    };
    let wanted: BTreeSet<String> = ProblemType::ALL.iter().map(row).collect();
    let guide = guide();
    let (_, list) = guide.split_once("### The closed list").unwrap();
    let stands: BTreeSet<String> = list
        .lines()
        .take_while(|line| !line.starts_with('#'))
        .filter(|line| line.starts_with("| `"))
        .map(str::to_owned)
        .collect();
    let (missing, wrong): (Vec<_>, Vec<_>) = (
        wanted.difference(&stands).collect(),
        stands.difference(&wanted).collect(),
    );
    assert!(
        missing.is_empty() && wrong.is_empty(),
        "missing: {missing:#?}\nwrong: {wrong:#?}"
    );
}

#[test]
fn every_resource_has_a_section() {
    let guide = guide();
    for tag in operations::ALL
        .iter()
        .map(|described| described.tag)
        .collect::<BTreeSet<_>>()
    {
        assert!(guide.contains(&format!("\n### `/{tag}`\n")), "{tag}");
    }
}

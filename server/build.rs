//! A migration that is added changes no file that the compiler knows of.

fn main() {
    println!("cargo::rerun-if-changed=../migrations");
}

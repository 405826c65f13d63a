//! Support bundles: what is in one ([`parts`], without secrets: [`redact`]), how it is packed ([`archive`]) and how long it
//! is kept ([`keep`]).

pub mod archive;
pub mod keep;
pub mod parts;
pub mod redact;

/// A file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: &'static str,
    pub content: Vec<u8>,
}

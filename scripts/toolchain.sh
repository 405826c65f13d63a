#!/usr/bin/env bash
# Is there a Rust toolchain that is new enough? Says how to get one where not; installs nothing.
set -eu
cd "$(dirname "$0")/.."

needed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
advice="install it from https://rustup.rs, with the components clippy and rustfmt"

for tool in cargo cargo-clippy cargo-fmt; do
  if ! command -v "$tool" >/dev/null; then
    echo "$tool is missing: Rust $needed or newer is needed; $advice" >&2
    exit 1
  fi
done

found=$(cargo --version | cut -d ' ' -f 2)
oldest=$(printf '%s\n%s\n' "$needed" "$found" | sort --version-sort | head -n 1)
if [ "$oldest" != "$needed" ]; then
  echo "cargo is $found, but Rust $needed or newer is needed: rustup update" >&2
  exit 1
fi

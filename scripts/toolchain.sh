#!/usr/bin/env bash
# Is there a Rust toolchain that is new enough? Where there is none at all, installs one with rustup, Debian's where it
# has one (from 13 on); one that is too old is left alone, and what to do about it is said.
set -eu -o pipefail
cd "$(dirname "$0")/.."

needed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)

install() {
  echo "there is no Rust toolchain: installing one with rustup" >&2
  if ! command -v rustup >/dev/null && ! scripts/packages.sh rustup; then
    command -v curl >/dev/null || scripts/packages.sh ca-certificates curl || return
    curl --proto '=https' --tlsv1.2 --silent --show-error --fail https://sh.rustup.rs |
      sh -s -- -y --quiet --no-modify-path --profile minimal --default-toolchain none || return
  fi
  rustup toolchain install stable --profile minimal --component clippy,rustfmt && rustup default stable
}

command -v cc >/dev/null || scripts/packages.sh build-essential
if ! command -v cargo >/dev/null && ! install; then
  echo "no Rust toolchain could be installed: install Rust $needed or newer from https://rustup.rs by hand" >&2
  exit 1
fi

for tool in cargo-clippy cargo-fmt; do
  if ! command -v "$tool" >/dev/null; then
    echo "$tool is missing: rustup component add clippy rustfmt" >&2
    exit 1
  fi
done

found=$(cargo --version | cut -d ' ' -f 2)
oldest=$(printf '%s\n%s\n' "$needed" "$found" | sort --version-sort | head -n 1)
if [ "$oldest" != "$needed" ]; then
  echo "cargo is $found, but Rust $needed or newer is needed: rustup update" >&2
  exit 1
fi

#!/usr/bin/env bash
# Runs every fuzz target for FUZZ_SECONDS. Installs cargo-fuzz where it is missing. Sanitizers need flags that a stable
# compiler takes only when told that it may, so that no nightly toolchain is needed.
set -eu
cd "$(dirname "$0")/.."

command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked
export RUSTC_BOOTSTRAP=1
targets=$(cargo fuzz list)
[ -n "$targets" ] || { echo "there are no fuzz targets" >&2; exit 1; }
for target in $targets; do
  echo "== $target, ${FUZZ_SECONDS:-60} s"
  cargo fuzz run "$target" -- -max_total_time="${FUZZ_SECONDS:-60}" -len_control=0 -rss_limit_mb=2048 -timeout=10
done

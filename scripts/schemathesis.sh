#!/usr/bin/env bash
# Installs schemathesis, which asks the API whatever its document allows and forbids, where its pinned version is not
# there yet: into target/schemathesis, for tests/tests/schemathesis.rs.
set -eu
cd "$(dirname "$0")/.."

pinned=scripts/schemathesis.txt
venv=${CARGO_TARGET_DIR:-target}/schemathesis
# Written when everything is installed, so that a try that was cut off is not taken for one that succeeded.
cmp --silent "$pinned" "$venv/installed.txt" && exit 0

echo "installing: schemathesis into $venv" >&2
python3 -m venv --clear "$venv"
if ! "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --requirement "$pinned"; then
  echo "schemathesis cannot be installed: pip needs the network, or a mirror named in its configuration" >&2
  exit 1
fi
cp "$pinned" "$venv/installed.txt"

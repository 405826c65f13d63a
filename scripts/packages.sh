#!/usr/bin/env bash
# Installs the Debian packages given.
set -eu

echo "installing: $*"
if ! command -v apt-get >/dev/null; then
  echo "there is no apt-get here: install these, or what holds their programs, by hand" >&2
  exit 1
fi
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)
"${as_root[@]}" apt-get update
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"

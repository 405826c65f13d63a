#!/usr/bin/env bash
# Installs the Debian packages given.
set -eu

echo "installing: $*" >&2
by_hand() {
  echo "$1: install these, or what holds their programs, by hand: ${*:2}" >&2
  exit 1
}
command -v apt-get >/dev/null || by_hand "there is no apt-get here" "$@"
as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || by_hand "there is no sudo here, and only root can install packages" "$@"
  as_root=(sudo)
fi
"${as_root[@]}" apt-get update
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"

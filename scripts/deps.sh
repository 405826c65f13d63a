#!/usr/bin/env bash
# Installs the Debian packages whose programs are missing, and does nothing where none is: it then needs no network.
#
#   scripts/deps.sh serve|test
set -eu

# purpose program  package
needed='
serve postgres            postgresql
test  cc                  build-essential
test  curl                curl
test  fio                 fio
test  nbdinfo             libnbd-bin
test  nbdcopy             libnbd-bin
test  nbdfuse             libnbd-bin
test  nbdkit              nbdkit
test  qemu-img            qemu-utils
test  qemu-io             qemu-utils
test  qemu-storage-daemon qemu-utils
test  mkfs.ext4           e2fsprogs
test  e2fsck              e2fsprogs
test  fusermount3         fuse3
test  mount               mount
test  python3             python3
'

# Programs for administrators are not in everybody's PATH, those of Postgres in nobody's.
export PATH="$PATH:/usr/sbin:/sbin"
for folder in /usr/lib/postgresql/*/bin; do
  PATH="$PATH:$folder"
done
missing=$(while read -r purpose program package; do
  [ -n "$purpose" ] || continue
  # What serves is needed for tests too.
  [ "$purpose" = "$1" ] || [ "$1" = test ] || continue
  command -v "$program" >/dev/null || echo "$package"
done <<<"$needed" | sort -u)
# A part of Python that Debian has apart, and no program.
if [ "$1" = test ] && ! python3 -c 'import ensurepip' 2>/dev/null; then
  missing="$missing python3-venv"
fi
# A library that the bench of parity compares with, and no program.
if [ "$1" = test ] && ! ldconfig -p | grep -q 'libisal\.so\.2'; then
  missing="$missing libisal2"
fi
[ -n "$missing" ] || exit 0

# One package a word.
# shellcheck disable=SC2086
exec "$(dirname "$0")/packages.sh" $missing

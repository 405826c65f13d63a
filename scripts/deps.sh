#!/usr/bin/env bash
# Installs the Debian packages whose programs are missing, and does nothing where none is: it then needs no network.
set -eu

# program  package
needed='
cc                  build-essential
fio                 fio
nbdinfo             libnbd-bin
nbdcopy             libnbd-bin
nbdfuse             libnbd-bin
nbdkit              nbdkit
qemu-img            qemu-utils
qemu-io             qemu-utils
qemu-storage-daemon qemu-utils
mkfs.ext4           e2fsprogs
e2fsck              e2fsprogs
fusermount3         fuse3
mount               mount
postgres            postgresql
python3             python3
'

# Programs for administrators are not in everybody's PATH, those of Postgres in nobody's.
export PATH="$PATH:/usr/sbin:/sbin"
for folder in /usr/lib/postgresql/*/bin; do
  PATH="$PATH:$folder"
done
missing=$(while read -r program package; do
  [ -z "$program" ] || command -v "$program" >/dev/null || echo "$package"
done <<<"$needed" | sort -u)
[ -n "$missing" ] || exit 0

# One package a word.
# shellcheck disable=SC2086
exec "$(dirname "$0")/packages.sh" $missing

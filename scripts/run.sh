#!/usr/bin/env bash
# Serves the appliance in a folder; makes a small one there first when there is none: a mirror of two sparse files
# with one volume.
set -eu
cd "$(dirname "$0")/.."

dir=$1 listen=$2
engine=${CARGO_TARGET_DIR:-target}/release/ashlar-engine
if [ ! -e "$dir/member-0.img" ]; then
  "$engine" create --dir "$dir" --level 1 --members 2 --member-size 10GiB --volume vol0 --size 8GiB
fi

cat <<EOF
vol0 is a mirror of $dir/member-0.img and $dir/member-1.img. Once the line with "ready" appears, try from another shell:

  nbdinfo nbd://$listen/vol0
  nbdcopy --progress some.img nbd://$listen/vol0
  qemu-io -f raw -c 'write -P 0x61 1M 64k' -c 'read -P 0x61 1M 64k' nbd://$listen/vol0
  sudo nbd-client ${listen%:*} ${listen##*:} /dev/nbd0 -N vol0

Ctrl-C stops it; what was written stays in $dir.

EOF
exec "$engine" serve --dir "$dir" --listen "$listen" --socket "$dir/nbd.sock"

#!/usr/bin/env bash
# A tour in a temporary folder: make a mirror, write through it, kill the server, start it again, look.
set -eu
cd "$(dirname "$0")/.."

engine=$(realpath "${CARGO_TARGET_DIR:-target}/release/ashlar-engine")
dir=$(mktemp -d /tmp/ashlar-demo.XXXX)
server=
trap '[ -z "$server" ] || kill -KILL "$server" 2>/dev/null; rm -rf "$dir"' EXIT
uri="nbd+unix:///vol0?socket=$dir/s"

step() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }
serve() {
  printf '$ ashlar-engine serve --dir %s --listen 127.0.0.1:0 --socket %s &\n' "$dir" "$dir/s"
  coproc SERVER { exec "$engine" serve --dir "$dir" --listen 127.0.0.1:0 --socket "$dir/s"; }
  server=$SERVER_PID
  read -r ready <&"${SERVER[0]}" || { echo "the server did not start" >&2; exit 1; }
  echo "$ready"
}

step "A mirror of two files, with a volume of 256 MiB"
show "$engine" create --dir "$dir" --level 1 --members 2 --member-size 1GiB --volume vol0 --size 256MiB
serve
show nbdinfo "$uri"

step "An image of random bytes goes in, flushed at the end"
head -c 64M /dev/urandom >"$dir/image"
show nbdcopy --flush "$dir/image" "$uri"

step "kill -9, in the midst of further writes elsewhere in the volume"
# fio keeps the state of its writes in the folder that it is started in.
(cd "$dir" && fio --name=more --ioengine=nbd --rw=randwrite --bs=4k --offset=128m --size=64m --iodepth=8 --time_based \
  --runtime=60 --uri="$uri" --trigger-timeout=2 --trigger="kill -KILL $server" --output=fio.log) || true
wait "$server" && { echo "the server ended by itself" >&2; exit 1; }

step "The same again, and the image out of it"
serve
show qemu-io -f raw -c 'read -v 0 64' "$uri"
nbdcopy "$uri" "$dir/out"
show cmp --bytes=64M "$dir/image" "$dir/out" && echo "every byte of the image is there"
kill -TERM "$server"
wait "$server"

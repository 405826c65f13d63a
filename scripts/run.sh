#!/usr/bin/env bash
# Serves the appliance whose data folder is DIR (default ./data), and says what to do with it. Ctrl-C stops it.
#
#   scripts/run.sh LISTEN NBD_LISTEN [DIR]
set -eu
cd "$(dirname "$0")/.."

listen=$1 nbd_listen=$2 dir=${3:-}
ashlar=$(realpath --canonicalize-missing "${CARGO_TARGET_DIR:-target}/release/ashlar")

# As root, Postgres runs as the user postgres, who gets into no closed home folder.
if [ -z "$dir" ]; then
  dir=data
  if [ "$(id -u)" = 0 ] && ! setpriv --reuid postgres --regid postgres --clear-groups test -x "$PWD"; then
    dir=/var/lib/ashlar
    echo "$PWD is closed to the user postgres, as whom the catalog's database runs: the data folder is $dir"
  fi
fi

dir=$(realpath --canonicalize-missing "$dir")

# What is to be done next: an appliance that has devices already is not set up again.
steps() {
  echo "  export ASHLAR_DATA=$dir PATH=${ashlar%/*}:\$PATH:/usr/sbin"
  if [ -e "$dir/devices.json" ]; then
    echo "  ashlar export list"
    return
  fi
  cat <<EOF
  ashlar device add $dir/disk0.img --size 1GiB --name disk0
  ashlar device add $dir/disk1.img --size 1GiB --name disk1
  ashlar raid-group create --level 1 --name mirror disk0 disk1
  ashlar volume create vol0 --capacity 512MiB --raid-group mirror
  ashlar export create vol0

and go on with the tour in README.md.
EOF
}

# Reads what the server prints and, when it is ready, adds what can be done now.
tell() {
  # Ctrl-C is for the server, which then closes the pipe.
  trap '' INT
  while IFS= read -r line; do
    echo "$line"
    case $line in
      "ashlar ready: "*) read -r _ _ api nbd <<<"$line" ;;
      *) continue ;;
    esac
    cat <<EOF

  API              $api/api/v1, documentation at $api/docs/
  hosts attach at  $nbd/NAME-OF-AN-EXPORT
  user admin       has the password in $dir/admin-password
  devices, keys and catalog are kept in $dir; Ctrl-C stops the appliance

In another shell, here:

$(steps)

EOF
  done
}

exec "$ashlar" serve --data "$dir" --listen "$listen" --nbd-listen "$nbd_listen" > >(tell)

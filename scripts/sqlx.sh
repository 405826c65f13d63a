#!/usr/bin/env bash
# Checks every query of the server against the migrations, on a Postgres made for that, and renews .sqlx. With --check
# it only says whether .sqlx is as it should be, and nothing is done where that was seen before.
#
# A script and no program of the workspace: where a query is new, nothing that depends on the server compiles yet.
set -eu
cd "$(dirname "$0")/.."

mode=${1:-renew}
seen=${CARGO_TARGET_DIR:-target}/sqlx-checked
# Of everything that could make a difference.
now() {
  find migrations server .sqlx Cargo.lock -type f \( -name '*.rs' -o -name '*.sql' -o -name '*.json' -o -name '*.toml' \
    -o -name '*.lock' \) -print0 | sort --zero-terminated | xargs -0 sha256sum | sha256sum
}
if [ "$mode" = --check ] && [ "$(now)" = "$(cat "$seen" 2>/dev/null)" ]; then
  exit
fi
# The newest version's programs.
bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort --version-sort | tail -n 1)
[ -x "$bin/postgres" ] || bin=$(pg_config --bindir)

work=$(mktemp -d)
chmod 711 "$work"
cluster=$work/cluster
mkdir "$cluster" "$work/queries"
as_user=()
if [ "$(id -u)" = 0 ]; then
  chown postgres: "$cluster"
  as_user=(setpriv --reuid postgres --regid postgres --clear-groups)
fi
pid=
# Reached through the trap.
# shellcheck disable=SC2317
clean_up() {
  if [ -n "$pid" ]; then
    kill -INT "$pid" && wait "$pid" || true
  fi
  rm -rf "$work"
}
trap clean_up EXIT

# Whom to let in the cluster's folder decides: nobody else gets to the socket.
(
  cd /
  "${as_user[@]}" "$bin/initdb" --username ashlar --auth trust --encoding UTF8 --locale C.UTF-8 --no-sync \
    --pgdata "$cluster/data" >"$work/initdb.log" || { cat "$work/initdb.log" >&2; exit 1; }
)
"${as_user[@]}" "$bin/postgres" -D "$cluster/data" -c listen_addresses= -c unix_socket_directories="$cluster" \
  -c fsync=off >"$work/postgres.log" 2>&1 &
pid=$!
until "$bin/pg_isready" --quiet --host "$cluster" --username ashlar --dbname postgres; do
  kill -0 "$pid" || { cat "$work/postgres.log" >&2; exit 1; }
  sleep 0.05
done
sql=("$bin/psql" --no-psqlrc --quiet --set ON_ERROR_STOP=1 --host "$cluster" --username ashlar --dbname)
"${sql[@]}" postgres --command 'create database ashlar'
for migration in migrations/*.sql; do
  "${sql[@]}" ashlar --single-transaction --file "$migration"
done

# Only what is compiled anew is checked and written. Files that were touched would have the release built anew as well.
cargo clean --quiet --package ashlar-server
DATABASE_URL="postgres://ashlar@localhost/ashlar?host=$cluster" SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$work/queries" \
  cargo check --quiet --package ashlar-server --all-targets

if [ "$mode" = --check ]; then
  diff --recursive --brief .sqlx "$work/queries" || { echo ".sqlx is stale: run \`make sqlx\`" >&2; exit 1; }
else
  rm -rf .sqlx
  mv "$work/queries" .sqlx
fi
now >"$seen"

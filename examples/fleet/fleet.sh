#!/bin/sh
# A fleet of two nodes in two regions over one etcd, on this machine: the second joins by a token, a tunnel is served at
# both, one node drains. Needs: adit, etcd and curl on the PATH (ADIT=path/to/adit names another), and nothing else on
# the ports of west-1.toml and east-1.toml. Everything is made in a new folder and stopped at the end.
set -eu

adit=${ADIT:-adit}
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
cp "$here"/*.toml "$folder"
cd "$folder"
pids=""
trap 'for pid in $pids; do kill "$pid" 2>/dev/null || true; done; wait' EXIT
say() { printf '\n== %s\n' "$*"; }
until_true() { # waits up to 20 s for a command to succeed
    for _ in $(seq 100); do "$@" >/dev/null 2>&1 && return; sleep 0.2; done
    echo "not in time: $*" >&2; exit 1
}
serves() { [ "$(curl --silent --output /dev/null --write-out '%{http_code}' -H 'host: app.example.localhost' "http://127.0.0.1:$1/")" = 200 ]; }

say "etcd, with one member; a fleet that matters has three"
etcd --data-dir etcd --auto-compaction-retention 1h \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster default=http://127.0.0.1:2380 2> etcd.log & pids="$pids $!"
until_true curl --silent --fail http://127.0.0.1:2379/health

say "the first node: the fleet, its authority, an account"
"$adit" edge init --config west-1.toml --zone example.localhost
"$adit" edge run --config west-1.toml 2> west-1.log & pids="$pids $!"
until_true curl --silent --fail http://127.0.0.1:20241/ready

say "the second joins by a token, which is good once within an hour"
"$adit" edge invite east-1 --config west-1.toml > token
"$adit" edge join --token-file token --config east-1.toml
"$adit" edge run --config east-1.toml 2> east-1.log & east=$!; pids="$pids $east"
until_true curl --silent --fail http://127.0.0.1:20242/ready
"$adit" edge nodes --admin 127.0.0.1:20241

say "a tunnel with a connection to each; what one node is told both serve"
export TUNNEL_API_URL=http://127.0.0.1:20251 TUNNEL_ORIGIN_CERT="$folder/cert.pem"
"$adit" tunnel create demo
"$adit" tunnel route dns demo app.example.localhost
cat west-1/ca.pem east-1/ca.pem > authorities.pem
cat > config.yml <<'CONFIG'
tunnel: demo
ingress:
  - hostname: app.example.localhost
    service: hello_world
  - service: http_status:404
CONFIG
TUNNEL_EDGE=127.0.0.1:7851,127.0.0.1:7852 TUNNEL_CACERT="$folder/authorities.pem" \
    "$adit" tunnel --config config.yml run demo 2> host.log & pids="$pids $!"
until_true serves 8081
until_true serves 8082

say "the second node drains, and ends by itself; the first serves on"
"$adit" edge drain east-1 --config west-1.toml
wait "$east"
until_true serves 8081
"$adit" edge nodes --admin 127.0.0.1:20241

say "it is a node no more"
"$adit" edge leave --config east-1.toml
"$adit" edge nodes --admin 127.0.0.1:20241
"$adit" edge audit --config west-1.toml
say "done: $folder"

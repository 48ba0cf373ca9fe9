#!/bin/sh
# The whole life of a tunnel on this machine: an edge, a name, two replicas, and the end of it all.
# Needs: adit and curl on the PATH (ADIT=path/to/adit names another), and nothing else running on the ports
# of edge.toml. Everything is made in a new folder and stopped at the end.
set -eu

adit=${ADIT:-adit}
folder=$(mktemp -d)
cd "$folder"
pids=""
trap 'for pid in $pids; do kill "$pid" 2>/dev/null || true; done; wait' EXIT
say() { printf '\n== %s\n' "$*"; }
until_true() { # waits up to 20 s for a command to succeed
    for _ in $(seq 100); do "$@" >/dev/null 2>&1 && return; sleep 0.2; done
    echo "not in time: $*" >&2; exit 1
}
connections() { [ "$("$adit" tunnel info demo -o json | grep -c '"opened_at"')" = "$1" ]; }

say "set the edge up: configuration, authority, state, cert.pem"
"$adit" edge init --zone example.localhost
"$adit" edge run --config edge.toml 2> edge.log & pids="$pids $!"
export TUNNEL_API_URL=http://127.0.0.1:20250 TUNNEL_ORIGIN_CERT="$folder/cert.pem"
until_true "$adit" tunnel list

say "make a tunnel, and lead a name to it"
"$adit" tunnel create demo
"$adit" tunnel route dns demo app.example.localhost
curl --silent --output /dev/null --write-out 'before it runs: %{http_code}\n' -H 'host: app.example.localhost' http://127.0.0.1:8080/

say "run it twice: one tunnel, two connectors, eight connections"
export TUNNEL_EDGE=127.0.0.1:7841,127.0.0.1:7842,127.0.0.1:7843,127.0.0.1:7844 TUNNEL_CACERT="$folder/edge-data/ca.pem"
cat > config.yml <<'CONFIG'
tunnel: demo
ingress:
  - hostname: app.example.localhost
    service: hello_world
  - service: http_status:404
CONFIG
"$adit" tunnel --config config.yml run demo 2> one.log & pids="$pids $!"
"$adit" tunnel --config config.yml run demo 2> two.log & two=$!; pids="$pids $two"
until_true connections 8
"$adit" tunnel info demo
"$adit" tunnel list

say "a visitor"
curl --silent --fail --output /dev/null --write-out 'through the tunnel: %{http_code}\n' -H 'host: app.example.localhost' http://127.0.0.1:8080/

say "one of them goes; the other serves on"
kill "$two"; wait "$two" || true
until_true connections 4
"$adit" tunnel info demo
curl --silent --fail --output /dev/null --write-out 'still: %{http_code}\n' -H 'host: app.example.localhost' http://127.0.0.1:8080/

say "clean up, and delete"
"$adit" tunnel cleanup demo
"$adit" tunnel delete --force demo
"$adit" tunnel list
"$adit" edge audit
say "done: $folder"

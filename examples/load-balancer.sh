#!/bin/sh
# Two tunnels with the same configuration behind one host name: traffic, one of them stops, one is killed, and
# nobody notices, but for a webhook, which is told.
# Needs: adit, curl and python3 on the PATH (ADIT=path/to/adit names another). Everything is made in a new folder, on ports
# that are free, and stopped at the end.
set -eu

adit=${ADIT:-adit}
folder=$(mktemp -d)
cd "$folder"
pids=""
trap 'touch stop; for pid in $pids; do kill "$pid" 2>/dev/null || true; done; wait' EXIT
say() { printf '\n== %s\n' "$*"; }
until_true() { # waits up to 60 s for a command to succeed
    for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return; sleep 0.2; done
    echo "not in time: $*" >&2; tail -n 5 ./*.log >&2; exit 1
}
bound() { # the address of a listener, once the edge has said it
    address=$(grep "\"$1\"" edge.log | grep -o '"address":"[^"]*"' | head -n 1 | cut -d '"' -f 4)
    [ -n "$address" ] && echo "$address"
}
up() { [ "$("$adit" lb status app.example.localhost -o json | grep -c '"healthy": true')" = "$1" ]; }
visits() { [ "$(wc -l < codes)" -ge "$1" ]; }
told() { grep -q "$1" alerts; } # what the webhook has got
more() { until_true visits $(($(wc -l < codes) + 30)); }

say "set the edge up"
cat > edge.toml <<'EDGE'
[visitors]
http = "127.0.0.1:0"
[api]
listen = "127.0.0.1:0"
[alerts]
private-networks = ["127.0.0.1"]
down-for = "1s"
up-for = "1s"
[[server]]
region = "west"
listen = "127.0.0.1:0"
[[server]]
region = "east"
listen = "127.0.0.1:0"
EDGE
account=$("$adit" edge init --zone example.localhost | grep '^account' | tr -s ' ' | cut -d ' ' -f 2)
"$adit" --log-format json edge run --config edge.toml 2> edge.log & pids="$pids $!"
until_true bound api
until_true bound east
until_true bound visitors-http
export TUNNEL_API_URL="http://$(bound api)" TUNNEL_ORIGIN_CERT="$folder/cert.pem"
export TUNNEL_EDGE="$(bound west),$(bound east)" TUNNEL_CACERT="$folder/edge-data/ca.pem"
visitors=$(bound visitors-http)
until_true "$adit" tunnel list

say "a webhook is told when a tunnel or the pool goes down or comes back"
cat > webhook.py <<'WEBHOOK'
import http.server
class Webhook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        print(self.headers["webhook-id"], body, file=open("alerts", "a"))
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Webhook)
print(server.server_port, file=open("port", "w"), flush=True)
server.serve_forever()
WEBHOOK
python3 webhook.py & pids="$pids $!"
until_true test -s port
token=$("$adit" edge token create)
made() { # makes something by the API and prints its id
    curl --silent --fail -H "authorization: Bearer $token" -d "$2" \
        "$TUNNEL_API_URL/accounts/$account/alerting/v3/$1" | grep -o '"id":"[^"]*"' | cut -d '"' -f 4
}
webhook=$(made destinations/webhooks "{\"name\": \"on call\", \"url\": \"http://127.0.0.1:$(cat port)/\"}")
for kind in tunnel_health_event load_balancing_health_alert; do
    made policies "{\"name\": \"all\", \"enabled\": true, \"alert_type\": \"$kind\",
        \"mechanisms\": {\"webhooks\": [{\"id\": \"$webhook\"}]}}" > policy
done

say "two tunnels behind one host name"
"$adit" tunnel create one
"$adit" tunnel create two
"$adit" tunnel route lb one app.example.localhost shop
"$adit" tunnel route lb two app.example.localhost shop
visit() { curl --silent --output /dev/null --write-out '%{http_code}\n' -H 'host: app.example.localhost' "http://$visitors/"; }
echo "before they run: $(visit)"

say "both run, by the same configuration"
cat > config.yml <<'CONFIG'
ingress:
  - service: hello_world
CONFIG
run() { "$adit" tunnel --config config.yml --metrics 127.0.0.1:0 --protocol "$2" run "$1" 2>> "$1.log" & }
run one quic; one=$!; pids="$pids $one"
run two http2; two=$!; pids="$pids $two"
until_true up 2
touch codes
while [ ! -e stop ]; do visit >> codes; done & pids="$pids $!"
more
"$adit" lb status app.example.localhost

say "one of them stops"
kill "$one"; wait "$one" || true
until_true up 1
more
"$adit" lb status app.example.localhost
until_true told 'The tunnel one is down'
grep 'The tunnel one is down' alerts

say "it comes back, and the other one is killed"
run one quic; one=$!; pids="$pids $one"
until_true up 2
more
kill -9 "$two"; wait "$two" || true
until_true up 1
more
"$adit" lb status app.example.localhost

touch stop
sort codes | uniq -c
if grep -qv '^200$' codes; then echo "somebody noticed" >&2; exit 1; fi
say "nobody noticed: $(wc -l < codes) visits, all answered"

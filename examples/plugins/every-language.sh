#!/bin/sh
# A plugin in every language: begun, built, tested, looked at, and then all of them in one chain, behind a
# tunnel on this machine. Needs: adit and curl on the PATH (ADIT=path/to/adit names another), and the tools of
# each language. ADIT_LANGUAGES="rust c" leaves the others out. In a clone of the repository
# `cargo xtask languages && . target/tools/languages/env` finds the tools first.
# The first argument is a folder to work in; without one everything is made in a new folder.
set -eu

adit=${ADIT:-adit}
all="rust js python c go"
languages=${ADIT_LANGUAGES-$all}
folder=${1:-$(mktemp -d)}
cd "$folder"
pids=""
trap 'for pid in $pids; do kill "$pid" 2>/dev/null || true; done; wait' EXIT
say() { printf '\n== %s\n' "$*"; }
until_true() { # waits up to ten minutes: what is new to the host is compiled first, at the lowest priority
    for _ in $(seq 3000); do "$@" >/dev/null 2>&1 && return; sleep 0.2; done
    echo "not in time: $*" >&2; cat host.log >&2; exit 1
}
is_there() { command -v "$1" >/dev/null 2>&1; }

for language in $all; do
    case " $languages " in
        *" $language "*) ;;
        *) printf 'SKIPPED: %s\n' "$language"; continue ;;
    esac
    say "$language: new, build, test, inspect"
    "$adit" plugin new --lang "$language" "hello-$language"
    # What a person would type once, if the tools are nowhere else.
    case $language in
        js) is_there componentize-qjs || (cd "hello-$language" && npm install --no-audit --no-fund) ;;
        python) is_there componentize-py || (cd "hello-$language" && python3 -m venv .venv && .venv/bin/pip install --quiet -r requirements.txt) ;;
    esac
    "$adit" plugin build "hello-$language"
    "$adit" plugin test "hello-$language"
done

say "an edge"
"$adit" edge credentials --output demo.json
cat > edge.toml <<'EDGE'
data-dir = "edge-data"
[visitors]
http = "127.0.0.1:0"
[[server]]
region = "here"
name = "here-1"
listen = "127.0.0.1:0"
[[tunnel]]
name = "demo"
credentials-file = "demo.json"
hostnames = ["app.localhost", "*.app.localhost"]
EDGE
"$adit" --log-format json edge run --config edge.toml 2> edge.log & pids="$pids $!"
address() { sed -n "s/.*\"kind\":\"$1\",\"address\":\"\([^\"]*\)\".*/\1/p" edge.log | grep .; }
until_true address server
until_true address visitors-http
visitors=$(address visitors-http)

say "a host with all of them: each by itself below its own name, and one chain of them all"
{
    printf '[tunnel]\ncredentials-file = "demo.json"\nedges = ["%s"]\nedge-ca = "edge-data/ca.pem"\nconnections = 1\n' "$(address server)"
    printf '[admin]\nlisten = "127.0.0.1:0"\n'
    chain=""
    for language in $languages; do
        printf '[[plugin]]\nname = "%s"\ncomponent = "hello-%s/build/plugin.wasm"\n' "$language" "$language"
        printf '[plugin.config]\ntext = "hello from %s"\n' "$language"
        printf '[[ingress]]\nhostname = "%s.app.localhost"\nservice = "hello_world"\nplugins = ["%s"]\n' "$language" "$language"
        chain="$chain${chain:+, }\"$language\""
    done
    printf '[[ingress]]\nservice = "hello_world"\nplugins = [%s]\n' "$chain"
} > host.toml
"$adit" --log-format json tunnel run --config host.toml 2> host.log & pids="$pids $!"
until_true grep -q '"registered"' host.log

say "a visitor"
ask() { curl --silent --show-error --fail "$@"; }
for language in $languages; do
    answer=$(ask -H "host: $language.app.localhost" -H 'x-name: Ada' "http://$visitors/hello")
    printf '%s\n' "$answer"
    [ "$answer" = "hello from $language, Ada!" ] || { echo "that is not what $language says" >&2; exit 1; }
done
ask --output /dev/null --dump-header headers -H 'host: app.localhost' "http://$visitors/"
for language in $languages; do
    grep -i "^x-hello-$language: hello from $language" headers
done
say "done: $folder"

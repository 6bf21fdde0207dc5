#!/usr/bin/env bash
# Asks the proxy, with the tools of others, whether it keeps to the protocols. Builds
# the proxy and the tools, which go.mod pins; prints a table of results, writes it to
# RESULTS.md, and ends with status 1 when a case failed.
#
# usage: run.sh [-only REGEX]    e.g. run.sh -only 'h2spec.*inbound'
#
# FERRULE_PROXY_BIN  a ferrule-proxy that is built already
# FERRULE_CACHE      where built tools are kept (default: ~/.cache/ferrule)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$root/target/conformance

main() {
  for program in go curl; do
    command -v "$program" >/dev/null || fail "$program is missing: install it (go: the version in proxy/conformance/go.mod or later)"
  done
  local proxy tools
  proxy=$(proxy)
  tools=$(tools)
  # A folder for each run, so that two at once don't meet; those of long ago go.
  mkdir -p "$work"
  find "$work" -mindepth 1 -maxdepth 1 -type d -name 'run-*' -mmin +120 -exec rm -rf {} +
  local run
  run=$(mktemp -d "$work/run-$(date +%H%M%S)-XXX")
  (cd "$here" && build "$run/conformance" .)
  exec "$run/conformance" \
    -proxy "$proxy" -h2spec "$tools/h2spec" -grpc-client "$tools/grpc-client" -grpc-server "$tools/grpc-server" \
    -directory "$run" -results "$here/RESULTS.md" "$@"
}

# Prints the proxy's path.
proxy() {
  if [[ -n ${FERRULE_PROXY_BIN:-} ]]; then
    [[ -x $FERRULE_PROXY_BIN ]] || fail "FERRULE_PROXY_BIN=$FERRULE_PROXY_BIN is no program"
    echo "$FERRULE_PROXY_BIN"
    return
  fi
  cargo build --manifest-path "$root/Cargo.toml" --locked --quiet --package ferrule-proxy --bin ferrule-proxy
  echo "${CARGO_TARGET_DIR:-$root/target}/debug/ferrule-proxy"
}

# Prints the folder of the tools. Its name is a hash of what decides their content, so
# a change of a pinned version means a fresh folder and never a mixture.
tools() {
  local key bin
  key=$(cat "$here/go.mod" "$here/go.sum" | sha256sum | cut -c1-16)
  bin=${FERRULE_CACHE:-$HOME/.cache/ferrule}/conformance/$key
  mkdir -p "$bin"
  exec 9>"$bin/.lock"
  flock 9
  tool "$bin/h2spec" github.com/summerwind/h2spec/cmd/h2spec
  tool "$bin/grpc-client" google.golang.org/grpc/interop/client
  tool "$bin/grpc-server" google.golang.org/grpc/interop/server
  exec 9>&-
  echo "$bin"
}

tool() {
  [[ ! -x $1 ]] || return 0
  echo "building $(basename "$1")" >&2
  (cd "$here" && build "$1.partial" "$2")
  mv "$1.partial" "$1"
}

build() {
  CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w" -o "$1" "$2"
}

fail() {
  echo "run.sh: $*" >&2
  exit 1
}

main "$@"

#!/usr/bin/env bash
# Packs `talk` (proxy/conformance/cmd/talk) and grpc-go's own interoperability client
# and server into an image.
#
# usage: talk.sh NAME:TAG OUT
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
conformance=$here/../../proxy/conformance

main() {
  [[ $# -eq 2 ]] || fail "usage: talk.sh NAME:TAG OUT"
  local key bin
  key=$(find "$conformance" "${BASH_SOURCE[0]}" -type f ! -name '*.md' -print0 | LC_ALL=C sort -z |
    xargs -0 sha256sum | cut -d' ' -f1 | sha256sum | cut -c1-16)
  bin=${FERRULE_CACHE:-$HOME/.cache/ferrule}/talk/$key
  mkdir -p "$bin"
  exec 9>"$bin/.lock"
  flock 9
  build "$bin/talk" ./cmd/talk
  build "$bin/grpc-client" google.golang.org/grpc/interop/client
  build "$bin/grpc-server" google.golang.org/grpc/interop/server
  exec 9>&-
  "$here/../../images/pack.sh" --name "$1" --out "$2" --user 65532:65532 \
    --bin "$bin/talk" --bin "$bin/grpc-client" --bin "$bin/grpc-server"
}

build() {
  [[ ! -x $1 ]] || return 0
  echo "building $(basename "$1")" >&2
  (cd "$conformance" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w" -o "$1.partial" "$2")
  mv "$1.partial" "$1"
}

fail() {
  echo "talk.sh: $*" >&2
  exit 1
}

main "$@"

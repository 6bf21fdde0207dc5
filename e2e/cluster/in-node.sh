#!/usr/bin/env bash
# Runs a command in a node's network, where the addresses of Services and pods
# answer; from the machine's own network they do not.
#
# usage: in-node.sh NODE COMMAND…
set -euo pipefail

[[ $# -ge 2 ]] || { echo "usage: in-node.sh NODE COMMAND…" >&2; exit 1; }
node=$1
shift
exec nsenter --net="/run/netns/ferrule-$node" -- "$@"

#!/usr/bin/env bash
# Imports image tars into every node of the cluster.
#
# usage: load-images.sh TAR…
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$here/node.sh"

[[ $# -gt 0 ]] || { echo "usage: load-images.sh TAR…" >&2; exit 1; }
[[ -S $state/node1/containerd.sock ]] || { echo "no cluster is up; see up.sh" >&2; exit 1; }

for socket in "$state"/node*/containerd.sock; do
  node=${socket#"$state/node"}
  node=${node%%/*}
  for tar in "$@"; do
    ctr "$node" images import "$tar" >/dev/null
  done
done

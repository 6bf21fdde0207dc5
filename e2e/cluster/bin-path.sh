#!/usr/bin/env bash
# Prints the folder that holds the cluster's binaries, kubectl and helm among
# them. Its name is a hash of all that decides their content, so a change of a
# pinned version means a fresh folder and never a mixture.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/.."

key=$(find tools cluster/build.sh -type f -print0 | LC_ALL=C sort -z |
  xargs -0 sha256sum | sha256sum | cut -c1-16)
echo "${FERRULE_CACHE:-$HOME/.cache/ferrule}/tools/$key/bin"

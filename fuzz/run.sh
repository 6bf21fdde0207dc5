#!/usr/bin/env bash
# As proxy/fuzz/run.sh, for what others send to the operator.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
FUZZ_DIR=$here exec "$here/../proxy/fuzz/run.sh" "$@"

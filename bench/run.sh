#!/usr/bin/env bash
# Runs the benchmark with the binaries that make has built.
#
# usage: run.sh FERRULE-BENCH FERRULE-PROXY [OPTION…]
#
# PRIORITY=-15 puts all that it starts before everything else on the machine (nice, and the nice of a session of its
# own, by which the scheduler shares processors out), for figures from a machine that others use too.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly program=$1 proxy=$2
shift 2
cache=$(bench/deps.sh)
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

command=("$program" run --ferrule "$proxy" --cache "$cache" "$@")
if [[ ${PRIORITY:-0} == 0 ]]; then
  "${command[@]}"
else
  # In its own session Ctrl-C does not reach it; the kernel ends it when this script has ended.
  # shellcheck disable=SC2016 # expanded by the inner shell
  setsid --wait setpriv --pdeathsig TERM bash -c '
    if [[ -w /proc/self/autogroup ]]; then echo "$PRIORITY" >/proc/self/autogroup; fi
    exec nice -n "$PRIORITY" "$@"' bash "${command[@]}"
fi

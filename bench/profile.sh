#!/usr/bin/env bash
# Where the proxy's CPU time goes in one measure: perf report as text, and a flame graph.
#
# usage: profile.sh FERRULE-BENCH FERRULE-PROXY MEASURE PEER SECONDS DIRECTORY
set -euo pipefail
cd "$(dirname "$0")/.."

readonly program=$1 proxy=$2 measure=$3 peer=$4 seconds=$5 directory=$6
readonly tools=${FERRULE_CACHE:-$HOME/.cache/ferrule}/cargo
command -v perf >/dev/null || { echo "perf is missing: apt-get install linux-perf" >&2; exit 1; }
[[ -x $tools/bin/inferno-flamegraph ]] ||
  cargo install --locked --quiet --root "$tools" inferno --bin inferno-flamegraph --bin inferno-collapse-perf

mkdir -p "$directory"
readonly base=$directory/$measure-$peer
bench/run.sh "$program" "$proxy" --only "$measure" --peers "$peer" --rounds 1 --seconds "$seconds" --perf "$base.data"

symbols() {
  perf report -i "$base.data" --stdio --no-children -g none -F overhead,sym 2>/dev/null | awk 'NF && $1 !~ /^#/'
}
{
  symbols | awk '{ sum[$2] += $1 } END { printf "kernel %.1f %%, user %.1f %%\n\n", sum["[k]"], sum["[.]"] }'
  symbols | awk 'NR <= 50'
} >"$base.txt"
perf script -i "$base.data" 2>/dev/null | "$tools/bin/inferno-collapse-perf" 2>/dev/null |
  "$tools/bin/inferno-flamegraph" --title "$peer, $measure" >"$base.svg"
cat "$base.txt"
echo "flame graph: $base.svg"

#!/usr/bin/env bash
# Runs the fuzz targets, all or those named, each for FUZZ_SECONDS (20). What they find new goes to FUZZ_CORPUS
# (target/fuzz-corpus), not to the corpora of the tree; a failing input is left in proxy/fuzz/artifacts.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# fuzz/run.sh has targets of its own.
cd "${FUZZ_DIR:-$here}"

seconds=${FUZZ_SECONDS:-20}
found=${FUZZ_CORPUS:-$here/../../target/fuzz-corpus}
sanitizer=${FUZZ_SANITIZER:-none}
root=${FERRULE_CACHE:-$HOME/.cache/ferrule}/cargo

rustup toolchain list | grep -q '^nightly' || rustup toolchain install --profile minimal nightly
[ -x "$root/bin/cargo-fuzz" ] || cargo install --locked --quiet --root "$root" cargo-fuzz

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  mapfile -t targets < <(cd fuzz_targets && printf '%s\n' *.rs | sed 's/\.rs$//')
fi
# cargo finds the subcommand on the path.
export PATH="$root/bin:$PATH"
for target in "${targets[@]}"; do
  mkdir -p "$found/$target"
  echo "== $target: ${seconds} s"
  cargo +nightly fuzz run --fuzz-dir . --sanitizer "$sanitizer" "$target" "$found/$target" "corpus/$target" -- \
    -seed="${FUZZ_SEED:-0}" -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0
done

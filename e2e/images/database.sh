#!/usr/bin/env bash
# Packs MariaDB's server and client, as Debian has them, into an image: the real
# thing whose server speaks first. Everything in it comes from Debian's archive,
# the C library too; this machine's own packages are neither used nor changed.
#
# usage: database.sh NAME:TAG OUT
#
# The image is kept in the cache, under a name that changes with this script.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly packages=(mariadb-server-core mariadb-client-core busybox-static)

main() {
  [[ $# -eq 2 ]] || fail "usage: database.sh NAME:TAG OUT"
  local name=$1 out=$2 key cache
  key=$(cat "${BASH_SOURCE[0]}" "$here/../../images/pack.sh" <(echo "$name") | sha256sum | cut -c1-16)
  cache=${FERRULE_CACHE:-$HOME/.cache/ferrule}/images
  mkdir -p "$cache" "$(dirname "$out")"
  exec 9>"$cache/.lock"
  flock 9
  [[ -e $cache/database-$key.tar ]] || build "$name" "$cache/database-$key.tar"
  cp "$cache/database-$key.tar" "$out"
}

build() {
  local name=$1 image=$2 version
  command -v apt-get >/dev/null || fail "apt-get is missing: the database comes from Debian's archive"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  unpack
  version=$(basename "$work"/archives/mariadb-server-core_* | cut -d_ -f2)
  bootstrap >"$work/root/bootstrap.sql"
  # Documentation, and what only the machine of a package manager needs.
  rm -rf "$work/root"/usr/share/{doc,man,lintian,gcc,gdb,initramfs-tools}
  mkdir -p "$work/root/data" "$work/root/tmp"
  ln -s busybox "$work/root/bin/sh"
  # The one static program tells the image's machine.
  mv "$work/root/bin/busybox" "$work/busybox"
  "$here/../../images/pack.sh" --name "$name" --out "$image" --tree "$work/root" \
    --bin "$work/busybox:/bin/busybox" --user 65532:65532 \
    --label org.opencontainers.image.version="${version//%3a/:}"
}

# The packages and all that they depend on.
unpack() {
  local names archive
  mapfile -t names < <(
    apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
      --no-enhances "${packages[@]}" | grep '^[a-z0-9]' | grep -vx libelogind0 | LC_ALL=C sort -u
  )
  [[ ${#names[@]} -gt ${#packages[@]} ]] ||
    fail "apt knows no package ${packages[*]}: run apt-get update"
  echo "fetching ${packages[*]} and what they need: ${#names[@]} packages" >&2
  mkdir "$work/archives" "$work/root"
  (cd "$work/archives" && apt-get download -qq -o APT::Sandbox::User=root "${names[@]}")
  for archive in "$work"/archives/*.deb; do
    dpkg -x "$archive" "$work/root"
  done
}

# What mariadb-install-db feeds to a new server, without help texts and test data.
bootstrap() {
  local share=$work/root/usr/share/mysql
  # One statement a line, as --bootstrap reads them.
  printf '%s;\n' "CREATE DATABASE mysql" "USE mysql" "SET @auth_root_socket = NULL"
  cat "$share"/mysql_system_tables.sql "$share"/mysql_performance_tables.sql "$share"/mysql_system_tables_data.sql
}

fail() {
  echo "database.sh: $*" >&2
  exit 1
}

main "$@"

#!/usr/bin/env bash
# Packs static binaries, and nothing else, into an image: a tar as `docker save`
# writes it, which containerd, docker and podman all load. Needs no container
# engine. Equal input gives an equal tar, byte for byte.
#
# usage: pack.sh --name NAME:TAG --out FILE --bin SOURCE[:DEST]…
#                [--tree FOLDER]… [--file SOURCE:DEST]…
#                [--entrypoint WORD]… [--cmd WORD]…
#                [--user UID[:GID]] [--label KEY=VALUE]…
#
# DEST is absolute and defaults to /<name of the binary>. A tree is a root file
# system, for programs that need a loader and libraries; at least one binary must
# be static all the same, and tells the machine that the image is for.
# SOURCE_DATE_EPOCH sets the image's date, 0 by default.
set -euo pipefail

readonly elf_interpreter=3 # PT_INTERP

main() {
  name='' out='' user='' architecture=''
  entrypoint='[]' cmd='[]' labels='{}'
  epoch=${SOURCE_DATE_EPOCH:-0}
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mkdir "$work/root" "$work/image"

  parse "$@"
  layer
  configuration
  image
}

parse() {
  while [[ $# -gt 0 ]]; do
    [[ $# -ge 2 ]] || fail "$1 wants a value"
    case $1 in
      --name) name=$2 ;;
      --out) out=$2 ;;
      --user) user=$2 ;;
      --bin) add_binary "$2" ;;
      --file) add_file "$2" ;;
      --tree) add_tree "$2" ;;
      --entrypoint) entrypoint=$(jq -c --arg word "$2" '. + [$word]' <<<"$entrypoint") ;;
      --cmd) cmd=$(jq -c --arg word "$2" '. + [$word]' <<<"$cmd") ;;
      --label)
        [[ $2 == *=* ]] || fail "--label $2: want KEY=VALUE"
        labels=$(jq -c --arg key "${2%%=*}" --arg value "${2#*=}" '. + {($key): $value}' <<<"$labels")
        ;;
      *) fail "unknown option $1" ;;
    esac
    shift 2
  done
  [[ $name =~ ^[^:]+(:[0-9]+/[^:]+)?:[^:/]+$ ]] || fail "--name '$name': want NAME:TAG"
  [[ -n $out ]] || fail "--out is missing"
  [[ -n $architecture ]] || fail "--bin is missing"
}

add_binary() {
  local source=${1%%:*} dest
  dest=/$(basename "$source")
  [[ $1 != *:* ]] || dest=${1#*:}
  check_binary "$source"
  put "$source" "$dest" 0755
}

add_file() {
  [[ $1 == *:* ]] || fail "--file $1: want SOURCE:DEST"
  put "${1%%:*}" "${1#*:}" 0644
}

add_tree() {
  [[ -d $1 ]] || fail "$1: no such folder"
  cp -a "$1/." "$work/root"
}

put() {
  local source=$1 dest=$2 mode=$3
  [[ -f $source ]] || fail "$source: no such file"
  [[ $dest == /* ]] || fail "$dest: the place in the image must be absolute"
  install -D -m "$mode" "$source" "$work/root$dest"
}

# An image of one binary has no dynamic loader: a binary that names one would
# fail at its start with a puzzling "no such file or directory".
check_binary() {
  local file=$1 offset size count i
  [[ -f $file ]] || fail "$file: no such file"
  [[ $(od -An -tx1 -N6 "$file" | tr -d ' \n') == 7f454c460201 ]] ||
    fail "$file: not a 64-bit little-endian ELF binary"

  case $(field "$file" 18 2) in
    62) found=amd64 ;;
    183) found=arm64 ;;
    *) fail "$file: built for a machine this script does not know" ;;
  esac
  [[ ${architecture:=$found} == "$found" ]] ||
    fail "$file: is for $found, a binary before it for $architecture"

  offset=$(field "$file" 32 8) size=$(field "$file" 54 2) count=$(field "$file" 56 2)
  for ((i = 0; i < count; i++)); do
    [[ $(field "$file" $((offset + i * size)) 4) != "$elf_interpreter" ]] ||
      fail "$file: dynamically linked, and the image holds no loader and no libc; build it static (Rust: -C target-feature=+crt-static with --target; Go: CGO_ENABLED=0)"
  done
}

field() {
  local file=$1 offset=$2 bytes=$3
  od -An -tu"$bytes" -j"$offset" -N"$bytes" "$file" | tr -d ' \n'
}

layer() {
  reproducible_tar "$work/root" "$work/image/layer.tar"
}

configuration() {
  local created digest
  created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)
  digest=$(sha256sum "$work/image/layer.tar" | cut -d' ' -f1)
  jq -cS -n --arg architecture "$architecture" --arg created "$created" --arg digest "sha256:$digest" \
    --arg user "$user" --argjson entrypoint "$entrypoint" --argjson cmd "$cmd" --argjson labels "$labels" '{
      architecture: $architecture,
      os: "linux",
      created: $created,
      config: {User: $user, Entrypoint: $entrypoint, Cmd: $cmd, Labels: $labels, WorkingDir: "/"},
      rootfs: {type: "layers", diff_ids: [$digest]},
      history: [{created: $created, created_by: "images/pack.sh"}]
    }' >"$work/image/config.json"
}

image() {
  jq -cS -n --arg name "$name" \
    '[{Config: "config.json", RepoTags: [$name], Layers: ["layer.tar"]}]' >"$work/image/manifest.json"
  mkdir -p "$(dirname "$out")"
  reproducible_tar "$work/image" "$out.partial"
  mv "$out.partial" "$out"
}

reproducible_tar() {
  local folder=$1 file=$2
  chmod -R u=rwX,go=rX "$folder"
  find "$folder" -mindepth 1 -printf '%P\0' | LC_ALL=C sort -z |
    tar --create --file "$file" --directory "$folder" --no-recursion --null --files-from - \
      --format=ustar --mtime="@$epoch" --owner=0 --group=0 --numeric-owner
}

fail() {
  echo "pack.sh: $*" >&2
  exit 1
}

main "$@"

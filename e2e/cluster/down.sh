#!/usr/bin/env bash
# Ends the cluster and leaves nothing of it behind. Ends only what lives in the
# nodes' network namespaces, which only up.sh makes.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

main() {
  local node
  for node in 1 2; do end_processes "ferrule-$node"; done
  # Before the namespace that holds its other end, which takes it along some time
  # after it is gone itself.
  [[ ! -e /sys/class/net/ferrule0 ]] || ip link delete ferrule0
  for node in 1 2; do
    [[ ! -e /run/netns/ferrule-$node ]] || ip netns delete "ferrule-$node"
  done
  remove_cgroups
  rm -rf --one-file-system "$state"
  rm -rf "$(dirname "$kubeconfig")"
}

# Among them is the node's process 1: with it the kernel ends every process of
# the node, the containers' too, and with the last of them the node's mounts and
# its pods' networks are gone.
end_processes() {
  local network=$1 pids pid i
  [[ -e /run/netns/$network ]] || return 0
  mapfile -t pids < <(ip netns pids "$network")
  [[ ${#pids[@]} -gt 0 ]] || return 0
  kill -9 "${pids[@]}" 2>/dev/null || true
  for pid in "${pids[@]}"; do
    for ((i = 0; i < 100; i++)); do
      alive "$pid" || break
      sleep 0.1
    done
  done
}

# A zombie waits only for its parent to take note.
alive() {
  local status
  status=$(grep -s '^State:' "/proc/$1/status") && [[ $status != *zombie* ]]
}

remove_cgroups() {
  local folder i
  for folder in /sys/fs/cgroup/"$cgroup" /sys/fs/cgroup/*/"$cgroup"; do
    # A cgroup is busy for a moment after its last process.
    for ((i = 0; i < 50; i++)); do
      [[ -d $folder ]] || break
      find "$folder" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
    done
  done
}

main

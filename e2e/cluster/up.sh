#!/usr/bin/env bash
# Starts a Kubernetes cluster on this machine, in network namespaces of its own,
# and returns when it is ready for use. What is up already is left as it is; what
# is half up is torn down first.
#
# usage: [NODES=2] up.sh
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$here/certs.sh"
source "$here/network.sh"
source "$here/control-plane.sh"
source "$here/node.sh"
source "$here/addons.sh"

nodes=${NODES:-1}

main() {
  [[ $nodes == [12] ]] || { echo "NODES=$nodes: want 1 or 2" >&2; exit 1; }
  # Two at once would each tear down what the other has half up. The programs
  # started do not inherit the lock.
  exec 9<"${BASH_SOURCE[0]}"
  flock 9
  "$here/deps.sh"
  "$here/build.sh"

  if is_up; then
    echo "cluster is up"
    return
  fi
  "$here/down.sh"
  SECONDS=0
  bring_up
  progress "cluster is up: export KUBECONFIG=$kubeconfig"
}

is_up() {
  local node name
  [[ -e $state/up && $(<"$state/up") == "$(identity)" ]] || return 1
  for name in etcd kube-apiserver kube-controller-manager kube-scheduler; do
    running "$name" 1 || return 1
  done
  for ((node = 1; node <= nodes; node++)); do
    for name in containerd kubelet kube-proxy; do
      running "$name-$node" "$node" || return 1
    done
    node_ready "$node" || return 1
  done
  # Another checkout may have brought up the cluster that runs.
  cmp -s "$state/pki/admin.kubeconfig" "$kubeconfig"
}

# A cluster of other programs, or of another size, is not the one asked for.
identity() { echo "$nodes $bin"; }

bring_up() {
  local node
  mkdir -p "$state/log" "$state/pid"
  addon_images &
  images=$!
  network "$nodes"
  certificates "$nodes"
  for ((node = 1; node <= nodes; node++)); do create_node "$node"; done
  progress "network, certificates"

  start_etcd
  start_kube-apiserver
  for ((node = 1; node <= nodes; node++)); do start_containerd "$node"; done
  for ((node = 1; node <= nodes; node++)); do
    wait_for "containerd $node" 20 containerd_ready "$node"
  done
  wait "$images"
  "$here/load-images.sh" "$state/images/"*.tar
  wait_for "API server" 60 api_ready

  start_kube-controller-manager
  start_kube-scheduler
  for ((node = 1; node <= nodes; node++)); do
    start_kubelet "$node"
    start_kube-proxy "$node"
  done
  apply_addons
  for ((node = 1; node <= nodes; node++)); do
    wait_for "node $node" 60 node_ready "$node"
  done
  # A pod made before its namespace's default service account is refused.
  wait_for "service accounts" 30 kubectl --namespace default get serviceaccount default
  wait_for "CoreDNS" 60 addons_ready

  publish_kubeconfig
  identity >"$state/up"
}

publish_kubeconfig() {
  local folder
  folder=$(dirname "$kubeconfig")
  mkdir -p "$folder"
  echo '*' >"$folder/.gitignore"
  install -m 600 "$state/pki/admin.kubeconfig" "$kubeconfig"
}

main

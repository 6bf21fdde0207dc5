#!/usr/bin/env bash
# Stops or starts one program of the running cluster, for tests of what happens
# without it. Pods keep running whatever is stopped.
#
# usage: component.sh stop|start NAME [NODE]
#   NAME: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, or on
#   the given node, 1 by default: containerd, kubelet, kube-proxy
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$here/control-plane.sh"
source "$here/node.sh"

usage() {
  sed -n '/^# usage/,/^[^#]/s/^# \?//p' "${BASH_SOURCE[0]}" >&2
  exit 1
}

[[ $# -ge 2 ]] || usage
action=$1 name=$2 node=${3:-1}
[[ -s $state/node$node/init.pid ]] || { echo "node $node is not up; see up.sh" >&2; exit 1; }

case $name in
  etcd | kube-apiserver | kube-controller-manager | kube-scheduler) node=1 process=$name ;;
  containerd | kubelet | kube-proxy) process=$name-$node ;;
  *) usage ;;
esac

case $action in
  stop) stop "$process" "$node" ;;
  start)
    running "$process" "$node" || "start_$name" "$node"
    case $name in
      kube-apiserver) wait_for "API server" 60 api_ready ;;
      containerd) wait_for "containerd $node" 20 containerd_ready "$node" ;;
      kubelet) wait_for "kubelet $node" 20 kubelet_ready "$node" ;;
    esac
    ;;
  *) usage ;;
esac

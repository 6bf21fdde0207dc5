#!/usr/bin/env bash
# Builds the programs a Kubernetes node consists of from their upstream sources,
# at the versions pinned in e2e/tools. What is already built is skipped, and an
# interrupted build resumes.
#
# usage: build.sh [NAME…]    (all, if none is named)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=$here/../tools
bin=$("$here/bin-path.sh")

# One line per program: name, module in e2e/tools, package, and the build flags
# it needs beyond the common ones.
programs() {
  local kube=k8s.io/kubernetes/cmd
  local kube_version=k8s.io/component-base/version
  local kube_flags="-X $kube_version.gitVersion=v1.36.3 -X $kube_version.gitMajor=1 -X $kube_version.gitMinor=36"
  local containerd=github.com/containerd/containerd/v2
  local containerd_tags="netgo osusergo no_btrfs no_devmapper no_zfs"
  local containerd_flags="-X $containerd/version.Version=v2.4.2"
  local cni=github.com/containernetworking/plugins/plugins
  local helm=helm.sh/helm/v4

  #        name                     module      package                             cgo tags                ldflags
  program  kubectl                  kubernetes  $kube/kubectl                       0   ""                  "$kube_flags"
  program  kube-apiserver           kubernetes  $kube/kube-apiserver                0   ""                  "$kube_flags"
  program  kubelet                  kubernetes  $kube/kubelet                       0   ""                  "$kube_flags"
  program  kube-controller-manager  kubernetes  $kube/kube-controller-manager       0   ""                  "$kube_flags"
  program  kube-scheduler           kubernetes  $kube/kube-scheduler                0   ""                  "$kube_flags"
  program  kube-proxy               kubernetes  $kube/kube-proxy                    0   ""                  "$kube_flags"
  program  etcd                     base        go.etcd.io/etcd/server/v3           0   ""                  ""
  # runc enters namespaces in C before Go's threads start, and without seccomp
  # every pod that asks for the default profile fails.
  program  runc                     base        github.com/opencontainers/runc      1   "seccomp"           ""
  program  containerd               containerd  $containerd/cmd/containerd          0   "$containerd_tags"  "$containerd_flags"
  program  containerd-shim-runc-v2  containerd  $containerd/cmd/containerd-shim-runc-v2 0 "$containerd_tags" "$containerd_flags"
  program  ctr                      containerd  $containerd/cmd/ctr                 0   "$containerd_tags"  "$containerd_flags"
  program  ptp                      containerd  $cni/main/ptp                       0   ""                  ""
  program  loopback                 containerd  $cni/main/loopback                  0   ""                  ""
  program  host-local               containerd  $cni/ipam/host-local                0   ""                  ""
  program  portmap                  containerd  $cni/meta/portmap                   0   ""                  ""
  program  coredns                  addons      github.com/coredns/coredns          0   ""                  ""
  program  helm                     addons      $helm/cmd/helm                      0   ""                  "-X $helm/internal/version.version=v4.3.1"
  program  probe                    probe       ferrule/e2e/tools/probe             0   ""                  ""
}

program() {
  local name=$1 module=$2 package=$3 cgo=$4 tags=$5 ldflags=$6
  wanted "$name" || return 0
  [[ ! -x $bin/$name ]] || return 0

  local started=$SECONDS
  (cd "$tools/$module" && CGO_ENABLED=$cgo go build -trimpath -buildvcs=false \
    -tags "$tags" -ldflags "-s -w $ldflags" -o "$bin/.$name.partial" "$package")
  mv "$bin/.$name.partial" "$bin/$name"
  printf 'built %-24s %4d s\n' "$name" $((SECONDS - started))
}

wanted() {
  [[ ${#chosen[@]} -eq 0 || " ${chosen[*]} " == *" $1 "* ]]
}

chosen=("$@")
mkdir -p "$bin"
# Two builds at once would only take each other's processor.
exec 9>"$bin/.lock"
flock 9
programs

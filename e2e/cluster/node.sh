# Starts a node: its process 1, then containerd, kubelet and kube-proxy by a
# function each. Sourced by up.sh and component.sh.
# shellcheck shell=bash

create_node() {
  local node=$1 folder=$state/node$1 unshare
  mkdir -p "$folder"
  : >"$folder/resolv.conf"
  containerd_config "$node" >"$folder/containerd.toml"
  mkdir -p "$folder/cni"
  cni_config "$node" >"$folder/cni/10-ferrule.conflist"
  kubelet_config "$node" >"$folder/kubelet.yaml"
  kube_proxy_config "$node" >"$folder/kube-proxy.yaml"

  setsid nsenter --net="/run/netns/ferrule-$node" \
    unshare --mount --pid --fork --kill-child --mount-proc \
    "$here/node-init.sh" "$folder" "$bin/probe" >"$state/log/node$node.log" 2>&1 </dev/null 9>&- &
  unshare=$!
  until [[ -e $folder/ready ]]; do
    kill -0 "$unshare" || return 1
    sleep 0.02
  done
  tr -d ' ' <"/proc/$unshare/task/$unshare/children" >"$folder/init.pid"
}

start_containerd() {
  local node=$1
  start "containerd-$node" "$node" env PATH="$bin:$PATH" \
    "$bin/containerd" --config "$state/node$node/containerd.toml"
}

start_kubelet() {
  local node=$1
  start "kubelet-$node" "$node" "$bin/kubelet" \
    --config "$state/node$node/kubelet.yaml" \
    --kubeconfig "$state/pki/node$node.kubeconfig" \
    --hostname-override "node$node" \
    --node-ip "${node_v4[node]},${node_v6[node]}" \
    --node-labels "topology.kubernetes.io/zone=zone-$node"
}

start_kube-proxy() {
  local node=$1
  start "kube-proxy-$node" "$node" "$bin/kube-proxy" --config "$state/node$node/kube-proxy.yaml"
}

containerd_ready() { ctr "$1" version; }

# It listens only once it has found containerd; unlike its node's condition,
# that is not a memory of an earlier kubelet.
kubelet_ready() { inside "$1" bash -c 'exec 3<>/dev/tcp/127.0.0.1/10250'; }

node_ready() {
  [[ $(kubectl get node "node$1" -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}') == True ]]
}

ctr() {
  local node=$1
  shift
  # Else each call warns of cgroup v1.
  CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1 "$bin/ctr" --address "$state/node$node/containerd.sock" --namespace k8s.io "$@"
}

# The pause program is the image's default command.
containerd_config() {
  local folder=$state/node$1
  cat <<EOF
version = 3
root = "$folder/containerd"
state = "$folder/run"

[grpc]
address = "$folder/containerd.sock"

[ttrpc]
address = "$folder/containerd.sock.ttrpc"

[plugins."io.containerd.shim.v1.manager"]
socket_dir = "$folder/s"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "localhost/probe:e2e"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
enable_unprivileged_ports = true

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "$bin/runc"
Root = "$folder/runc"
SystemdCgroup = false

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["$bin"]
conf_dir = "$folder/cni"
EOF
}

cni_config() {
  local node=$1
  cat <<EOF
{
  "cniVersion": "1.0.0",
  "name": "ferrule",
  "plugins": [
    {
      "type": "ptp",
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "$(node_pods_v4 "$node")"}], [{"subnet": "$(node_pods_v6 "$node")"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
      }
    },
    {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}}
  ]
}
EOF
}

kubelet_config() {
  local node=$1 folder=$state/node$1
  cat <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://$folder/containerd.sock
clusterDomain: cluster.local
clusterDNS: [10.96.0.10]
# The machine's own resolver does not answer in here, and each look-up would hang.
resolvConf: $folder/resolv.conf
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $state/pki/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: $state/pki/node$node.crt
tlsPrivateKeyFile: $state/pki/node$node.key
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
# The machine's disk is not the cluster's to judge.
evictionHard: {memory.available: 100Mi}
imageGCHighThresholdPercent: 100
maxPods: 200
kubeAPIQPS: 200
kubeAPIBurst: 400
eventRecordQPS: 0
EOF
}

kube_proxy_config() {
  local node=$1
  cat <<EOF
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: node$node
clientConnection:
  kubeconfig: $state/pki/kube-proxy.kubeconfig
  qps: 200
  burst: 400
clusterCIDR: $pods_v4,$pods_v6
detectLocalMode: ClusterCIDR
nftables: {minSyncPeriod: 100ms}
# Zero leaves the machine's conntrack settings alone.
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
EOF
}

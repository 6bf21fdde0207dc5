# What the cluster's scripts share: names, addresses, and how a program is
# started, found and stopped. Sourced, never run.
# shellcheck shell=bash
# shellcheck disable=SC2034 # the sourcing scripts use the variables

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
bin=$("$here/bin-path.sh")
kubeconfig=$repo/.cluster/kubeconfig

# Short, because the paths of sockets below it are limited to 107 characters.
state=/run/ferrule-e2e
cgroup=ferrule-e2e

# Node N lives in the network namespace ferrule-N. Node 1 also runs the control
# plane, and a veth pair joins it to the machine; node 2 hangs off node 1.
#
#   machine 198.18.0.1 --- .2 node 1 .5 --- .6 node 2
#
# 198.18.0.0/15 is set aside for tests (RFC 2544) and so free on any machine;
# the IPv6 prefix is a unique local one (RFC 4193).
ula=fd66:6572:7275
machine_v4=198.18.0.1 machine_v6=$ula::1
node_v4=([1]=198.18.0.2 [2]=198.18.0.6)
node_v6=([1]=$ula::2 [2]=$ula:1::6)
link_v4=198.18.0.5 link_v6=$ula:1::5
pods_v4=10.244.0.0/16 pods_v6=$ula:1000::/52
services_v4=10.96.0.0/16 services_v6=fd96::/108
api=https://${node_v4[1]}:6443

node_pods_v4() { echo "10.244.$1.0/24"; }
node_pods_v6() { echo "$ula:100$1::/64"; }

kubectl() { "$bin/kubectl" --kubeconfig "$state/pki/admin.kubeconfig" "$@"; }

# Runs a command inside a node: its network, its mounts, its processes.
inside() {
  local node=$1
  shift
  nsenter --target "$(<"$state/node$node/init.pid")" --net --mount --pid -- "$@"
}

# Starts a program inside a node, detached, and notes its process id as seen
# inside the node. The outer nsenter stays as its parent.
start() {
  local name=$1 node=$2
  shift 2
  rm -f "$state/pid/$name"
  # shellcheck disable=SC2016 # for the inner shell to expand
  inside "$node" setsid bash -c 'echo $$ >"$0"; exec "$@"' "$state/pid/$name" "$@" \
    >>"$state/log/$name.log" 2>&1 </dev/null 9>&- &
}

running() {
  local name=$1 node=$2
  [[ -s $state/pid/$name ]] && inside "$node" test -d "/proc/$(<"$state/pid/$name")" 2>/dev/null
}

# Three seconds to end in good order: the API server would take a minute, for it
# waits for its watchers.
stop() {
  local name=$1 node=$2 pid i
  running "$name" "$node" || return 0
  pid=$(<"$state/pid/$name")
  inside "$node" bash -c "kill $pid"
  for ((i = 0; i < 30; i++)); do
    running "$name" "$node" || break
    sleep 0.1
  done
  ! running "$name" "$node" || inside "$node" bash -c "kill -9 $pid"
  rm -f "$state/pid/$name"
}

# Waits until a command succeeds, and says what for, and how long it took since
# the start of the script.
wait_for() {
  local what=$1 limit=$2 deadline
  shift 2
  deadline=$((SECONDS + limit))
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= deadline)); then
      echo "$what: not within $limit s; see $state/log" >&2
      return 1
    fi
    sleep 0.1
  done
  progress "$what"
}

progress() { printf '%3d s  %s\n' "$SECONDS" "$*"; }

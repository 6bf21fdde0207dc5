# The cluster's network: a namespace for each node, veth pairs between them and
# to the machine, and the routes to each other's pods. Sourced by up.sh.
# shellcheck shell=bash

network() {
  local nodes=$1
  namespace 1
  ip link add ferrule0 type veth peer name eth0 netns ferrule-1
  address '' ferrule0 "$machine_v4/30" "$machine_v6/64"
  address 1 eth0 "${node_v4[1]}/30" "${node_v6[1]}/64"
  # Nothing answers there, but an address without a route is refused before
  # kube-proxy's rules see the packet.
  default_route 1 "$machine_v4" "$machine_v6"
  outside

  [[ $nodes -lt 2 ]] || second_node
}

# The machine has no route to the pods, and is to get none: to it they speak with
# their node's address.
outside() {
  in_network 1 nft -f - <<EOF
table inet outside {
  chain postrouting {
    type nat hook postrouting priority srcnat
    oifname eth0 ip saddr $pods_v4 ip daddr $machine_v4 masquerade
    oifname eth0 ip6 saddr $pods_v6 ip6 daddr $machine_v6 masquerade
  }
}
EOF
}

second_node() {
  namespace 2
  in_network 1 ip link add node2 type veth peer name eth0 netns ferrule-2
  address 1 node2 "$link_v4/30" "$link_v6/64"
  address 2 eth0 "${node_v4[2]}/30" "${node_v6[2]}/64"
  default_route 2 "$link_v4" "$link_v6"
  in_network 1 ip route add "$(node_pods_v4 2)" via "${node_v4[2]}"
  in_network 1 ip route add "$(node_pods_v6 2)" via "${node_v6[2]}"
}

namespace() {
  local node=$1
  ip netns add "ferrule-$node"
  in_network "$node" ip link set lo up
  # Without duplicate address detection, an IPv6 address is usable at once.
  in_network "$node" sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
    net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
}

address() {
  local node=$1 link=$2 v4=$3 v6=$4
  in_network "$node" ip address add "$v4" dev "$link"
  in_network "$node" ip address add "$v6" dev "$link" nodad
  in_network "$node" ip link set "$link" up
}

default_route() {
  local node=$1 v4=$2 v6=$3
  in_network "$node" ip route add default via "$v4"
  in_network "$node" ip route add default via "$v6"
}

# Not `ip netns exec`: that mounts a fresh /sys, which hides the cgroups. The
# empty name stands for the machine's own network.
in_network() {
  local node=$1
  shift
  if [[ -z $node ]]; then
    "$@"
  else
    nsenter --net="/run/netns/ferrule-$node" "$@"
  fi
}

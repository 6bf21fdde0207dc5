#!/usr/bin/env bash
# Process 1 of a node. It has mounts of its own, so that what the kubelet and
# containerd keep at fixed places stays out of the machine's own tree and two
# nodes do not share it, and it is the parent of all the node runs: when it is
# killed, the kernel kills the rest.
#
# usage: node-init.sh FOLDER PROBE
set -euo pipefail

folder=$1 probe=$2

# Mounts made in a pod must be seen by the others in this node.
mount --make-rshared /
mkdir -p "$folder/lib" "$folder/log"
mount --bind "$folder/lib" /var/lib
mount --bind "$folder/log" /var/log
touch "$folder/ready"
exec "$probe" pause

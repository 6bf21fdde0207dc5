#!/usr/bin/env bash
# Installs the Debian packages that building and running the cluster needs. Does
# nothing, at once, when none is missing.
set -euo pipefail

packages=(
  gcc libc6-dev libseccomp-dev pkg-config # runc
  iproute2                                # network namespaces
  nftables                                # kube-proxy, and hostPort
  mount util-linux procps                 # kubelet, nsenter, unshare, sysctl
  openssl                                 # certificates
  jq                                      # images/pack.sh
)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
    missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null

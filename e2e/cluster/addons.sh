# What a cluster needs beyond its node: the image that holds pods' namespaces
# open, and CoreDNS. Sourced by up.sh.
# shellcheck shell=bash

addon_images() {
  "$repo/images/pack.sh" --name localhost/probe:e2e --out "$state/images/probe.tar" \
    --bin "$bin/probe" --entrypoint /probe --cmd pause --user 65532
  "$repo/images/pack.sh" --name localhost/coredns:e2e --out "$state/images/coredns.tar" \
    --bin "$bin/coredns" --entrypoint /coredns --user 65532
}

apply_addons() {
  kubectl apply --server-side --filename "$here/coredns.yaml" >/dev/null
}

addons_ready() {
  kubectl --namespace kube-system wait --for condition=Available --timeout 0 deployment/coredns
}

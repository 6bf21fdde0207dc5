#!/bin/sh
# Tests the chart without a cluster: charts/test.sh [HELM]
set -eu
helm=${1:-helm}
chart=$(cd "$(dirname "$0")" && pwd)/ferrule
failed=0

render() { "$helm" template ferrule "$chart" --namespace ferrule-system "$@"; }

# holds WHAT PATTERN VALUES...: what is rendered with these values has the pattern.
holds() {
    what=$1 pattern=$2
    shift 2
    if ! output=$(render "$@" 2>&1); then
        echo "FAILED  $what: not rendered: $output"
        failed=1
    elif ! printf '%s\n' "$output" | grep -q -e "$pattern"; then
        echo "FAILED  $what: nothing matches $pattern"
        failed=1
    else
        echo "ok      $what"
    fi
}

# lacks WHAT PATTERN VALUES...: the contrary.
lacks() {
    what=$1 pattern=$2
    shift 2
    if ! output=$(render "$@" 2>&1); then
        echo "FAILED  $what: not rendered: $output"
        failed=1
    elif printf '%s\n' "$output" | grep -q -e "$pattern"; then
        echo "FAILED  $what: something matches $pattern"
        failed=1
    else
        echo "ok      $what"
    fi
}

# refuses WHAT WORD VALUES...: these values are not accepted, and the message has the word.
refuses() {
    what=$1 word=$2
    shift 2
    if output=$(render "$@" 2>&1); then
        echo "FAILED  $what: accepted"
        failed=1
    elif ! printf '%s\n' "$output" | grep -q -e "$word"; then
        echo "FAILED  $what: the message does not say $word: $output"
        failed=1
    else
        echo "ok      $what"
    fi
}

"$helm" lint --strict "$chart"
holds 'the image has the version as its tag' 'image: ferrule/ferrule:[0-9]'
holds 'a tag of the values wins' 'image: registry.example.com/mesh:edge' \
    --set image.repository=registry.example.com/mesh --set image.tag=edge
holds 'two replicas have a budget' 'kind: PodDisruptionBudget'
lacks 'one replica has none' 'kind: PodDisruptionBudget' --set replicas=1
lacks 'the chart sets no caBundle' 'caBundle:'
holds 'the webhook fails closed' 'failurePolicy: Fail'
holds 'the definitions are applied by a hook' 'args: \[crds, --apply\]'
lacks 'which can be left out' 'args: \[crds, --apply\]' --set crds.install=false
lacks 'without a CPU limit there is none' 'FERRULE_PROXY_CPU_LIMIT'
holds 'with one it is passed on' 'FERRULE_PROXY_CPU_LIMIT, value: "500m"' --set proxy.resources.limits.cpu=500m
holds 'pull secrets are passed on' 'name: registry-login' --set 'imagePullSecrets[0].name=registry-login'
holds 'annotations are passed on' 'example.com/team: mesh' --set 'podAnnotations.example\.com/team=mesh'
holds 'labels are passed on' 'team: mesh' --set podLabels.team=mesh
holds 'tolerations are passed on' 'operator: Exists' --set 'tolerations[0].operator=Exists'
holds 'the user may supply the authority' 'FERRULE_AUTHORITY_SECRET, value: "mesh-ca"' --set identity.authoritySecret=mesh-ca
holds 'which the operator may then read' 'resourceNames: \[mesh-ca\]' --set identity.authoritySecret=mesh-ca
lacks 'without one it may read no other' 'FERRULE_AUTHORITY_SECRET'
refuses 'a trust domain with a port' trustDomain --set identity.trustDomain=cluster.local:80
refuses 'a life that is no duration' certificateLife --set identity.certificateLife=long
refuses 'a value that there is not' replica --set replica=3
refuses 'a value of the wrong type' replicas --set replicas=many
refuses 'another failure policy' failurePolicy --set webhook.failurePolicy=Maybe
refuses 'a timeout that Kubernetes would refuse' timeoutSeconds --set webhook.timeoutSeconds=60
refuses 'memory without a unit' memory --set-string proxy.resources.limits.memory=256
refuses 'a sidecar without a memory limit' memory --set proxy.resources.limits.memory=
refuses 'a misspelt pull policy' pullPolicy --set image.pullPolicy=always
exit $failed

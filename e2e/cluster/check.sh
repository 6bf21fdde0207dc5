#!/usr/bin/env bash
# Checks that the running cluster does what Ferrule and its tests build on, and
# says what it checked. Leaves nothing in the cluster.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

readonly namespace=cluster-check

main() {
  [[ -e $state/up ]] || fail "no cluster is up; see up.sh"
  work=$(mktemp -d)
  trap clean_up EXIT

  check "every node is Ready" nodes_are_ready
  # One that an earlier check left may still be on its way out.
  kubectl delete namespace "$namespace" --ignore-not-found >/dev/null
  kubectl create namespace "$namespace" >/dev/null
  check "a namespace gets its service account" within 10 kubectl_here get serviceaccount default
  workloads | kubectl_here apply --filename - >/dev/null
  check "a pod with a native sidecar runs" kubectl_here wait --for condition=Ready --timeout 60s pod/server
  check "a Job with a native sidecar completes" kubectl_here wait --for condition=Complete --timeout 60s job/client
  check "the Job reached the Service by its name" says hello kubectl_here logs job/client --container get
  check "a Service has addresses of both families" says_times 2 kubectl_here exec server -- /probe lookup server
  check "exec reaches the sidecar" says here kubectl_here exec server --container sidecar -- /probe say here
  check "logs are read" says listening kubectl_here logs server --container serve
  check "the Service answers over IPv4" says hello service_answers 0
  check "the Service answers over IPv6" says hello service_answers 1
  check "port-forward carries a request" says hello port_forward
  check "the API server relays to a pod" says hello kubectl get --raw "/api/v1/namespaces/$namespace/pods/server:8080/proxy/"
  check "a token for an audience of its own is accepted" says '"authenticated":true' token_review ferrule
  check "a token for another audience is refused" says '"error"' token_review other
  check "pod security refuses a privileged pod" says "violates PodSecurity" privileged_pod
  check "helm installs a chart and waits for it" helm_install
  echo "all good, after $SECONDS s"
}

check() {
  local what=$1
  shift
  if "$@" >"$work/output" 2>&1; then
    echo "ok    $what"
  else
    echo "FAIL  $what" >&2
    sed 's/^/      /' "$work/output" >&2
    kubectl_here get pods,events >&2 || true
    exit 1
  fi
}

nodes_are_ready() { kubectl wait --for condition=Ready --timeout 10s --all nodes; }

kubectl_here() { kubectl --namespace "$namespace" "$@"; }

within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

says() {
  local text=$1 output
  shift
  output=$("$@" 2>&1) || true
  echo "$output"
  [[ $output == *"$text"* ]]
}

says_times() {
  local lines=$1 output
  shift
  output=$("$@")
  echo "$output"
  [[ $(wc -l <<<"$output") == "$lines" ]]
}

# The Job runs on the last node, the server on the first: with two nodes the
# request crosses from one to the other.
workloads() {
  local last
  last=$(kubectl get nodes --output name | sort | tail -1)
  cat <<EOF
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  selector: {app: server}
  ipFamilyPolicy: RequireDualStack
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: sidecar
    image: localhost/probe:e2e
    args: [serve, ":8081", sidecar]
    restartPolicy: Always
    startupProbe: {httpGet: {path: /, port: 8081}, periodSeconds: 1}
  containers:
  - name: serve
    image: localhost/probe:e2e
    args: [serve, ":8080", hello]
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: batch/v1
kind: Job
metadata: {name: client}
spec:
  template:
    spec:
      nodeName: ${last#node/}
      restartPolicy: Never
      initContainers:
      - name: sidecar
        image: localhost/probe:e2e
        args: [pause]
        restartPolicy: Always
      containers:
      - name: get
        image: localhost/probe:e2e
        args: [get, "http://server.$namespace.svc.cluster.local"]
EOF
}

service_answers() {
  local address
  address=$(kubectl_here get service server --output jsonpath="{.spec.clusterIPs[$1]}")
  [[ $address != *:* ]] || address="[$address]"
  "$here/in-node.sh" 1 "$bin/probe" get "http://$address"
}

port_forward() {
  local port
  "$bin/kubectl" --kubeconfig "$kubeconfig" --namespace "$namespace" port-forward pod/server :8080 >"$work/forward" 2>&1 &
  forward=$!
  within 10 grep -q Forwarding "$work/forward"
  port=$(sed -n 's/.*127\.0\.0\.1:\([0-9]*\) ->.*/\1/p' "$work/forward")
  "$bin/probe" get "http://127.0.0.1:$port"
  kill "$forward"
}

token_review() {
  local token
  token=$(kubectl_here create token default --audience ferrule)
  kubectl create --raw /apis/authentication.k8s.io/v1/tokenreviews --filename - <<EOF
{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
 "spec": {"token": "$token", "audiences": ["$1"]}}
EOF
}

privileged_pod() {
  kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=baseline
  kubectl_here run privileged --image localhost/probe:e2e --privileged
  kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce-
}

helm_install() {
  local chart=$work/chart
  mkdir -p "$chart/templates"
  printf 'apiVersion: v2\nname: tiny\nversion: 0.1.0\n' >"$chart/Chart.yaml"
  cat >"$chart/templates/deployment.yaml" <<'EOF'
apiVersion: apps/v1
kind: Deployment
metadata: {name: "{{ .Release.Name }}"}
spec:
  selector: {matchLabels: {app: tiny}}
  template:
    metadata: {labels: {app: tiny}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: pause, image: "localhost/probe:e2e"}]
EOF
  "$bin/helm" --kubeconfig "$kubeconfig" --namespace "$namespace" install tiny "$chart" --wait --timeout 60s
}

clean_up() {
  kubectl delete namespace "$namespace" --ignore-not-found --wait=false >/dev/null || true
  rm -rf "$work"
}

fail() {
  echo "check.sh: $*" >&2
  exit 1
}

main

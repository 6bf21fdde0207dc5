# Starts etcd and the Kubernetes control plane on node 1, each program by a
# function of its own. Sourced by up.sh and component.sh.
# shellcheck shell=bash

start_etcd() {
  start etcd 1 "$bin/etcd" --name node1 --data-dir "$state/etcd" --log-level warn \
    --unsafe-no-fsync \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster node1=http://127.0.0.1:2380
}

start_kube-apiserver() {
  start kube-apiserver 1 "$bin/kube-apiserver" \
    --etcd-servers http://127.0.0.1:2379 \
    --bind-address :: --advertise-address "${node_v4[1]}" \
    --service-cluster-ip-range "$services_v4,$services_v6" \
    --client-ca-file "$state/pki/ca.crt" \
    --tls-cert-file "$state/pki/kube-apiserver.crt" \
    --tls-private-key-file "$state/pki/kube-apiserver.key" \
    --kubelet-certificate-authority "$state/pki/ca.crt" \
    --kubelet-client-certificate "$state/pki/kubelet-client.crt" \
    --kubelet-client-key "$state/pki/kubelet-client.key" \
    --kubelet-preferred-address-types InternalIP \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$state/pki/service-account.pub" \
    --service-account-signing-key-file "$state/pki/service-account.key" \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
    --allow-privileged \
    --enable-priority-and-fairness=false \
    --max-requests-inflight 4000 --max-mutating-requests-inflight 2000
}

start_kube-controller-manager() {
  start kube-controller-manager 1 "$bin/kube-controller-manager" \
    --kubeconfig "$state/pki/kube-controller-manager.kubeconfig" \
    --kube-api-qps 200 --kube-api-burst 400 \
    --bind-address 127.0.0.1 --leader-elect=false \
    --allocate-node-cidrs=false --use-service-account-credentials \
    --root-ca-file "$state/pki/ca.crt" \
    --service-account-private-key-file "$state/pki/service-account.key" \
    --cluster-signing-cert-file "$state/pki/ca.crt" \
    --cluster-signing-key-file "$state/pki/ca.key"
}

start_kube-scheduler() {
  start kube-scheduler 1 "$bin/kube-scheduler" \
    --kubeconfig "$state/pki/kube-scheduler.kubeconfig" \
    --kube-api-qps 200 --kube-api-burst 400 \
    --bind-address 127.0.0.1 --leader-elect=false
}

api_ready() { kubectl get --raw /readyz; }

# The cluster's certificate authority, the certificates it issues, and a
# kubeconfig for each client. Sourced by up.sh.
# shellcheck shell=bash

pki=$state/pki

certificates() {
  local nodes=$1 node
  mkdir -p "$pki"
  key_pair "$pki/service-account"
  authority

  issue kube-apiserver /CN=kube-apiserver "$(names \
    DNS:kubernetes DNS:kubernetes.default DNS:kubernetes.default.svc \
    DNS:kubernetes.default.svc.cluster.local DNS:localhost \
    IP:10.96.0.1 IP:fd96::1 IP:127.0.0.1 IP:::1 "IP:${node_v4[1]}" "IP:${node_v6[1]}")"
  issue kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
  client admin /O=system:masters/CN=admin
  client kube-controller-manager /CN=system:kube-controller-manager
  client kube-scheduler /CN=system:kube-scheduler
  client kube-proxy /CN=system:kube-proxy
  for ((node = 1; node <= nodes; node++)); do
    client "node$node" "/O=system:nodes/CN=system:node:node$node" \
      "$(names "DNS:node$node" "IP:${node_v4[node]}" "IP:${node_v6[node]}")"
  done
}

authority() {
  openssl req -config <(openssl_config) -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
    -keyout "$pki/ca.key" -out "$pki/ca.crt" -days 365 -subj /CN=ferrule-e2e \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,digitalSignature 2>/dev/null
}

key_pair() {
  openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$1.key" 2>/dev/null
  openssl pkey -in "$1.key" -pubout -out "$1.pub"
}

issue() {
  local name=$1 subject=$2 alternatives=${3:-}
  openssl req -config <(openssl_config) -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
    -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -days 365 -subj "$subject" \
    -keyout "$pki/$name.key" -out "$pki/$name.crt" \
    -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=serverAuth,clientAuth \
    ${alternatives:+-addext "subjectAltName=$alternatives"} 2>/dev/null
}

names() {
  local IFS=,
  echo "$*"
}

# Without a file of its own, openssl adds the machine's default extensions.
openssl_config() {
  printf '[req]\ndistinguished_name=subject\n[subject]\n'
}

client() {
  local name=$1
  issue "$@"
  cat >"$pki/$name.kubeconfig" <<EOF
apiVersion: v1
kind: Config
clusters:
- name: ferrule-e2e
  cluster:
    server: $api
    certificate-authority-data: $(base64 -w0 "$pki/ca.crt")
users:
- name: $name
  user:
    client-certificate-data: $(base64 -w0 "$pki/$name.crt")
    client-key-data: $(base64 -w0 "$pki/$name.key")
contexts:
- name: ferrule-e2e
  context: {cluster: ferrule-e2e, user: $name}
current-context: ferrule-e2e
EOF
}

{{/* Labels of everything. */}}
{{- define "ferrule.labels" -}}
{{ include "ferrule.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: ferrule
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Labels that the operator's pods are found by. */}}
{{- define "ferrule.selector" -}}
app.kubernetes.io/name: ferrule-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* An image with its tag. */}}
{{- define "ferrule.image" -}}
{{ .image.repository }}:{{ .image.tag | default .appVersion }}
{{- end }}

{{/* What Pod Security "restricted" wants of a container. */}}
{{- define "ferrule.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What Pod Security "restricted" wants of a pod. */}}
{{- define "ferrule.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "adit-edge.name" -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "adit-edge.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "adit-edge.labels" -}}
{{ include "adit-edge.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "adit-edge.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "adit-edge.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "adit-edge.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{/* The edge's document. JSON's strings are strings of TOML too. */}}
{{- define "adit-edge.document" -}}
data-dir = "/var/lib/adit/data"

[visitors]
{{- if .Values.visitors.http }}
http = "[::]:8080"
{{- end }}
{{- if .Values.visitors.https }}
https = "[::]:8443"
{{- if .Values.visitors.tlsSecret }}
certificate = "/etc/adit/visitors/tls.crt"
private-key = "/etc/adit/visitors/tls.key"
{{- end }}
{{- end }}
{{- if .Values.connectors.tlsSecret }}

[connectors]
certificate = "/etc/adit/connectors/tls.crt"
private-key = "/etc/adit/connectors/tls.key"
{{- end }}
{{- if .Values.api.enabled }}

[api]
{{- if .Values.api.tlsSecret }}
listen = "[::]:20250"
certificate = "/etc/adit/api/tls.crt"
private-key = "/etc/adit/api/tls.key"
{{- else }}
listen = "127.0.0.1:20250"
{{- end }}
{{- with .Values.api.tunnelDomain }}
tunnel-domain = {{ . | toJson }}
{{- end }}
{{- with .Values.api.quickDomain }}
quick-domain = {{ . | toJson }}
{{- end }}
{{- end }}

[admin]
listen = "127.0.0.1:20240"
probes = "[::]:20242"

[drain]
linger = "{{ int .Values.drain.linger }}s"
hosts = "{{ int .Values.drain.hosts }}s"
grace-period = "{{ int .Values.drain.gracePeriod }}s"
{{ range .Values.servers }}
[[server]]
name = {{ .name | toJson }}
region = {{ .region | toJson }}
listen = "[::]:{{ int .port }}"
{{ end }}
{{- with .Values.extraDocument }}
{{ . }}
{{ end }}
{{- end -}}

{{- define "adit-edge.container" -}}
image: {{ include "adit-edge.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - {name: config, mountPath: /etc/adit/config, readOnly: true}
  - {name: data, mountPath: /var/lib/adit}
  {{- range $name := list "visitors" "connectors" "api" }}
  {{- if (index $.Values $name).tlsSecret }}
  - {name: {{ $name }}-tls, mountPath: /etc/adit/{{ $name }}, readOnly: true}
  {{- end }}
  {{- end }}
{{- end -}}

{{- define "adit-host.name" -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "adit-host.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "adit-host.labels" -}}
{{ include "adit-host.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "adit-host.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "adit-host.secret" -}}
{{- .Values.tunnel.existingSecret | default (include "adit-host.name" .) -}}
{{- end -}}

{{- define "adit-host.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "adit-host.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{/* The host's document. JSON's strings are strings of TOML too. */}}
{{- define "adit-host.document" -}}
state-dir = "/var/lib/adit/state"
config-source = {{ .Values.configSource | toJson }}
access-log = {{ .Values.accessLog }}

[tunnel]
{{- if eq .Values.tunnel.secretKind "credentials" }}
credentials-file = "/etc/adit/secret/identity"
{{- else }}
token-file = "/etc/adit/secret/identity"
{{- end }}
{{- with .Values.tunnel.edges }}
edges = {{ . | toJson }}
{{- end }}
{{- with .Values.tunnel.edgeDomain }}
edge-domain = {{ . | toJson }}
{{- end }}
{{- if or .Values.tunnel.edgeCA .Values.tunnel.edgeCAConfigMap }}
edge-ca = "/etc/adit/edge-ca/ca.pem"
{{- end }}
protocol = {{ .Values.tunnel.protocol | toJson }}
connections = {{ int .Values.tunnel.connections }}
grace-period = "{{ int .Values.tunnel.gracePeriodSeconds }}s"

[admin]
listen = "127.0.0.1:20241"
probes = "0.0.0.0:20242"
{{ range .Values.plugins }}
[[plugin]]
name = {{ .name | toJson }}
{{- if or (hasPrefix "oci://" .component) (hasPrefix "shelf:" .component) }}
component = {{ .component | toJson }}
{{- else }}
component = {{ printf "/etc/adit/plugins/%s" .component | toJson }}
{{- end }}
{{- with .config }}
config = {{ include "adit-host.inline" . }}
{{- end }}
{{ end }}
{{- with .Values.extraDocument }}
{{ . }}
{{ end }}
{{- range .Values.ingress }}
[[ingress]]
{{- with .hostname }}
hostname = {{ . | toJson }}
{{- end }}
{{- with .path }}
path = {{ . | toJson }}
{{- end }}
service = {{ .service | toJson }}
{{- with .plugins }}
plugins = {{ . | toJson }}
{{- end }}
{{ end }}
[[ingress]]
service = "http_status:404"
{{ end -}}

{{/* A value as an inline table, array or scalar of TOML. */}}
{{- define "adit-host.inline" -}}
{{- if kindIs "map" . -}}
{ {{- $first := true -}}
{{- range $key, $value := . -}}
{{- if not $first }},{{ end }} {{ $key | toJson }} = {{ include "adit-host.inline" $value -}}
{{- $first = false -}}
{{- end }} }
{{- else if kindIs "slice" . -}}
[{{- $first := true -}}
{{- range . -}}
{{- if not $first }}, {{ end }}{{ include "adit-host.inline" . -}}
{{- $first = false -}}
{{- end -}}]
{{- else if kindIs "float64" . -}}
{{- if eq (floor .) . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- else -}}
{{ . | toJson }}
{{- end -}}
{{- end -}}

{{/* What a pod of either kind is. */}}
{{- define "adit-host.pod" -}}
metadata:
  labels:
    {{- include "adit-host.selector" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "adit-host.serviceAccount" . }}
  automountServiceAccountToken: false
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  terminationGracePeriodSeconds: {{ add (int .Values.tunnel.gracePeriodSeconds) 15 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile: {type: RuntimeDefault}
  containers:
    - name: host
      image: {{ include "adit-host.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [tunnel, run, --config, /etc/adit/config/host.toml]
      {{- with .Values.env }}
      env:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - {name: probes, containerPort: 20242, protocol: TCP}
      # A restart repairs neither an edge nor an origin: only a process that does not answer is restarted.
      livenessProbe:
        httpGet: {path: /livez, port: probes}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /ready, port: probes}
        periodSeconds: 5
        timeoutSeconds: 5
      startupProbe:
        httpGet: {path: /livez, port: probes}
        periodSeconds: 2
        timeoutSeconds: 5
        failureThreshold: 60
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      # Whole folders, never subPath: Kubernetes swaps them while the host runs, and the host sees it.
      volumeMounts:
        - {name: config, mountPath: /etc/adit/config, readOnly: true}
        - {name: secret, mountPath: /etc/adit/secret, readOnly: true}
        {{- if or .Values.tunnel.edgeCA .Values.tunnel.edgeCAConfigMap }}
        - {name: edge-ca, mountPath: /etc/adit/edge-ca, readOnly: true}
        {{- end }}
        {{- if .Values.pluginConfigMaps }}
        - {name: plugins, mountPath: /etc/adit/plugins, readOnly: true}
        {{- end }}
        - {name: state, mountPath: /var/lib/adit}
        - {name: tmp, mountPath: /tmp}
  volumes:
    - name: config
      configMap: {name: {{ include "adit-host.name" . }}}
    - name: secret
      secret:
        secretName: {{ include "adit-host.secret" . }}
        defaultMode: 0440
        items:
          - {key: {{ .Values.tunnel.secretKey }}, path: identity}
    {{- if .Values.tunnel.edgeCAConfigMap }}
    - name: edge-ca
      configMap:
        name: {{ .Values.tunnel.edgeCAConfigMap }}
        items:
          - {key: {{ .Values.tunnel.edgeCAKey }}, path: ca.pem}
    {{- else if .Values.tunnel.edgeCA }}
    - name: edge-ca
      configMap:
        name: {{ include "adit-host.name" . }}
        items:
          - {key: ca.pem, path: ca.pem}
    {{- end }}
    {{- if .Values.pluginConfigMaps }}
    - name: plugins
      projected:
        sources:
          {{- range .Values.pluginConfigMaps }}
          - configMap: {name: {{ . }}}
          {{- end }}
    {{- end }}
    - name: state
      emptyDir: {sizeLimit: {{ .Values.state.sizeLimit }}}
    - name: tmp
      emptyDir: {medium: Memory, sizeLimit: 64Mi}
  {{- if .Values.topologySpread.enabled }}
  topologySpreadConstraints:
    {{- range .Values.topologySpread.keys }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "adit-host.selector" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
{{- end -}}

{{/* Whether a monitor is wanted. Takes (root, choice: auto, always or never). */}}
{{- define "daf.monitored" -}}
{{- $there := .root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1" -}}
{{- if or (eq .choice "always") (and (eq .choice "auto") $there) }}true{{ end -}}
{{- end -}}

{{/* Takes (root, kind, endpoints: the name of their field). */}}
{{- define "daf.monitor" -}}
apiVersion: monitoring.coreos.com/v1
kind: {{ .kind }}
metadata:
  name: {{ include "daf.fullname" .root }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "daf.labels" (dict "root" .root) | nindent 4 }}
    {{- with .root.Values.metrics.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  jobLabel: app.kubernetes.io/component
  selector:
    matchLabels:
      {{- include "daf.selector" (dict "root" .root) | nindent 6 }}
  {{ .endpoints }}:
    - {port: metrics, path: /metrics}
{{- end -}}

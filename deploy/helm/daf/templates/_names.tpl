{{/* Names, labels and images. */}}

{{- define "daf.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Names of objects get a suffix of up to 22 characters. */}}
{{- define "daf.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "daf.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "daf.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "daf.jobsNamespace" -}}
{{- default (printf "%s-jobs" .Release.Namespace) .Values.jobs.namespace -}}
{{- end -}}

{{- define "daf.services" -}}
scheduler training evaluation statistics deployment
{{- end -}}

{{/* Takes (root, component; component may be empty, for all pods of the release). */}}
{{- define "daf.selector" -}}
app.kubernetes.io/name: {{ include "daf.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "daf.labels" -}}
{{ include "daf.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Metadata of an object of a component. Takes (root, component). */}}
{{- define "daf.metadata" -}}
name: {{ include "daf.fullname" .root }}-{{ .component }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "daf.labels" . | nindent 2 }}
{{- end -}}

{{/* Takes (root, image), for example `scheduler`. */}}
{{- define "daf.image" -}}
{{- $image := .root.Values.image -}}
{{- with $image.prefix }}{{ trimSuffix "/" . }}/{{ end }}daf-{{ .image }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end -}}

{{/* The pods that the services start; `daf_common` gives them these labels. */}}
{{- define "daf.workloadSelector" -}}
app.kubernetes.io/managed-by: daf
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

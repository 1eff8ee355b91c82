{{/* What the pods of all components share. */}}

{{/* Fields of a pod's spec beside its containers. Takes (root, component). */}}
{{- define "daf.podSpec" -}}
enableServiceLinks: false # Kubernetes would set variables that begin with DAF_
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .root.Values.pods.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.pods.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.pods.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Takes (root, component, metrics: whether the pod has a port of metrics). */}}
{{- define "daf.podMetadata" -}}
{{- $annotations := deepCopy .root.Values.pods.annotations -}}
{{- if and .metrics .root.Values.metrics.annotations -}}
{{- $_ := merge $annotations (dict "prometheus.io/scrape" "true" "prometheus.io/port" "9090" "prometheus.io/path" "/metrics") -}}
{{- end -}}
{{- range $name, $value := .checksums -}}
{{- $_ := set $annotations (printf "checksum/%s" $name) (sha256sum $value) -}}
{{- end -}}
labels:
  {{- include "daf.labels" . | nindent 2 }}
  {{- with .root.Values.pods.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Replicas of a component keep apart where they can. Takes (root, component). */}}
{{- define "daf.topologySpread" -}}
{{- $selector := include "daf.selector" . -}}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end -}}

{{- define "daf.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* A new pod serves before an old one goes; nothing else waits for it. */}}
{{- define "daf.rolling" -}}
strategy:
  type: RollingUpdate
  rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
{{- end -}}

{{/* New connections still come for a moment after a pod was told to end: it listens on until they do not. */}}
{{- define "daf.preStop" -}}
lifecycle:
  preStop:
    sleep: {seconds: 5}
{{- end -}}

{{/* A budget is of use only beside a second replica. Takes (root, component, replicas). */}}
{{- define "daf.disruptionBudget" -}}
{{- if gt (int .replicas) 1 }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "daf.metadata" . | nindent 2 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      {{- include "daf.selector" . | nindent 6 }}
{{- end }}
{{- end -}}

{{/* Takes (root, component, annotations). */}}
{{- define "daf.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "daf.metadata" . | nindent 2 }}
  {{- with .annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}

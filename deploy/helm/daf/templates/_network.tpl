{{/* Network policies: every pod of the release is closed (see networkpolicy.yaml), these open what has to be. */}}

{{/* Pods of components as peers of a rule. Takes (root, components). */}}
{{- define "daf.peers" -}}
- podSelector:
    matchLabels:
      {{- include "daf.selector" (dict "root" .root) | nindent 6 }}
    matchExpressions:
      - {key: app.kubernetes.io/component, operator: In, values: {{ toJson .components }}}
{{- end -}}

{{- define "daf.ports" -}}
ports:
  {{- range . }}
  - {protocol: TCP, port: {{ . }}}
  {{- end }}
{{- end -}}

{{/* A rule of egress to what lies outside. Takes (to, ports); an empty `to` is everywhere. */}}
{{- define "daf.egressTo" -}}
{{ include "daf.ports" .ports }}
{{- with .to }}
to:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Ports of the artifact store, as a JSON list. */}}
{{- define "daf.artifactPorts" -}}
{{- $endpoint := .Values.artifacts.endpoint -}}
{{- if .Values.networkPolicy.artifacts.ports -}}
{{- toJson .Values.networkPolicy.artifacts.ports -}}
{{- else if $endpoint -}}
{{- $host := (urlParse $endpoint).host -}}
{{- $port := regexFind ":[0-9]+$" $host | trimPrefix ":" -}}
{{- list (int (default (ternary 80 443 (hasPrefix "http://" $endpoint)) $port)) | toJson -}}
{{- else -}}
[443]
{{- end -}}
{{- end -}}

{{/* Pods of jobs as a peer of a rule. Takes the root. */}}
{{- define "daf.workloadPeer" -}}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ include "daf.jobsNamespace" . }}
  podSelector:
    matchLabels:
      {{- include "daf.workloadSelector" . | nindent 6 }}
{{- end -}}

{{/* Takes (root, component). */}}
{{- define "daf.service.networkPolicy" -}}
{{- $root := .root -}}
{{- $needs := include "daf.needs" .component | fromYaml -}}
{{- $policy := $root.Values.networkPolicy -}}
{{- if $policy.enabled }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "daf.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "daf.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    - {{ include "daf.ports" (list 50051) | nindent 6 | trim }}
      from:
        {{- include "daf.peers" (dict "root" $root "components" $needs.callers) | nindent 8 }}
        {{- if $needs.workloads }}
        {{- include "daf.workloadPeer" $root | nindent 8 }}
        {{- end }}
    - {{ include "daf.ports" (list 9090) | nindent 6 | trim }}
      {{- with $policy.metricsFrom }}
      from:
        {{- toYaml . | nindent 8 }}
      {{- end }}
  egress:
    {{- with $needs.peers }}
    - {{ include "daf.ports" (list 50051) | nindent 6 | trim }}
      to:
        {{- include "daf.peers" (dict "root" $root "components" .) | nindent 8 }}
    {{- end }}
    - {{ include "daf.egressTo" $policy.database | nindent 6 | trim }}
    {{- if $needs.artifacts }}
    - {{ include "daf.egressTo" (dict "to" $policy.artifacts.to "ports" (include "daf.artifactPorts" $root | fromJsonArray)) | nindent 6 | trim }}
    {{- end }}
    {{- if and $needs.artifacts (not $root.Values.artifacts.existingSecret) }}
    # Workload identity: the agents of GKE and EKS on each node, that give out credentials.
    - {{ include "daf.ports" (list 80 988) | nindent 6 | trim }}
      to:
        - ipBlock: {cidr: 169.254.169.252/30}
        - ipBlock: {cidr: 169.254.170.23/32}
        - ipBlock: {cidr: "fd00:ec2::23/128"}
    {{- end }}
    {{- if $needs.workloads }}
    - {{ include "daf.egressTo" $policy.kubernetes | nindent 6 | trim }}
    {{- end }}
{{- end }}
{{- end -}}

{{- define "daf.dnsRule" -}}
ports:
  - {protocol: UDP, port: 53}
  - {protocol: TCP, port: 53}
{{- end -}}

{{/* What a service may do in the jobs' namespace, and nowhere else. Takes (root, component, group, resource of its workloads). */}}
{{- define "daf.workloadsRole" -}}
{{- $name := printf "%s-%s" (include "daf.fullname" .root) .component -}}
{{- $namespace := include "daf.jobsNamespace" .root -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ $namespace }}
  labels:
    {{- include "daf.labels" . | nindent 4 }}
rules:
  - apiGroups: [{{ .group }}]
    resources: [{{ .resource }}]
    verbs: [create, get, list, watch, delete]
  - apiGroups: [""] # deleted to stop them with a grace period of their own
    resources: [pods]
    verbs: [list, watch, delete]
  - apiGroups: [""]
    resources: [pods/log]
    verbs: [get]
  - apiGroups: [""] # why a pod does not run
    resources: [events]
    verbs: [list]
  - apiGroups: [""] # the tokens of jobs: written, and never listed
    resources: [secrets]
    verbs: [create, patch, delete]
  {{- if and (eq .component "training") .root.Values.networkPolicy.enabled }}
  - apiGroups: [networking.k8s.io] # that of each job, whose ranks talk to each other
    resources: [networkpolicies]
    verbs: [create, patch, delete]
  {{- end }}
  - apiGroups: [""] # the owner of all workloads
    resources: [configmaps]
    resourceNames: [{{ include "daf.fullname" .root }}-anchor]
    verbs: [get]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ $namespace }}
  labels:
    {{- include "daf.labels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ .root.Release.Namespace }}
{{- end -}}

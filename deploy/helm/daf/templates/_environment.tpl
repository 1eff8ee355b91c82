{{/* Environment of the services: settings of `daf_common.settings` and of each service. */}}

{{/* Takes (root, component). */}}
{{- define "daf.service.environment" -}}
{{- $root := .root -}}
{{- $fullname := include "daf.fullname" $root -}}
{{- $needs := include "daf.needs" .component | fromYaml -}}
{{- include "daf.environment.server" (dict "root" $root "home" "/work") }}
- name: DAF_DATABASE_URL
  {{- include "daf.databaseUrl" $root | nindent 2 }}
- name: DAF_MIGRATE # by the hook, before this version serves
  value: check
{{- range $needs.peers }}
- name: DAF_{{ upper . }}_ADDRESS
  value: {{ $fullname }}-{{ . }}:50051
{{- end }}
{{- if $needs.artifacts }}
{{- include "daf.environment.artifacts" $root | nindent 0 }}
{{- end }}
{{- if $needs.workloads }}
{{- include "daf.environment.workloads" . | nindent 0 }}
{{- end }}
{{- if eq .component "training" }}
{{- include "daf.environment.training" $root | nindent 0 }}
{{- else if eq .component "evaluation" }}
- name: DAF_EVALUATION_WORKERS
  value: {{ $root.Values.evaluation.workers | int | quote }}
- name: DAF_EVALUATION_SLOTS
  value: {{ $root.Values.evaluation.slots | int | quote }}
- name: DAF_EVALUATION_CPUS
  value: {{ $root.Values.evaluation.cpus | quote }}
- name: DAF_EVALUATION_MEMORY_GIB
  value: {{ $root.Values.evaluation.memoryGiB | quote }}
{{- end }}
{{- with concat $root.Values.pods.extraEnv (get $root.Values .component).extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What every server needs, on one node as well. Takes (root, home). */}}
{{- define "daf.environment.server" -}}
- name: DAF_REPLICA
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: HOME
  value: {{ .home }}
- name: DAF_HOME
  value: {{ .home }}
- name: DAF_LISTEN # on IPv6 too, where there is any, and there alone if need be; the same goes for metrics
  value: 0.0.0.0:50051
- name: DAF_METRICS_HOST
  value: 0.0.0.0
- name: DAF_METRICS_PORT
  value: "9090"
{{- if .root.Values.auth.enabled }}
- name: DAF_TOKENS
  value: /etc/daf/tokens
- name: DAF_TOKEN_FILE
  value: /etc/daf/tokens/service
{{- else }}
- name: DAF_ALLOW_ANONYMOUS
  value: "true"
{{- end }}
{{- include "daf.authorities.environment" .root | nindent 0 }}
{{- end -}}

{{- define "daf.databaseUrl" -}}
valueFrom:
  secretKeyRef:
    name: {{ required "database.existingSecret is needed: the name of a Secret with the URL of a PostgreSQL (or set singleNode.enabled to try DAF out without one)" .Values.database.existingSecret }}
    key: {{ .Values.database.key }}
{{- end -}}

{{- define "daf.environment.artifacts" -}}
- name: DAF_ARTIFACTS_URL
  value: {{ required "artifacts.url is needed, for instance s3://BUCKET/PREFIX (or set singleNode.enabled to try DAF out without a store)" .Values.artifacts.url | quote }}
{{- with .Values.artifacts.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with .Values.artifacts.endpoint }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- if hasPrefix "http://" . }}
- name: AWS_ALLOW_HTTP
  value: "true"
{{- end }}
{{- end }}
{{- end -}}

{{/* Takes (root, component). */}}
{{- define "daf.environment.workloads" -}}
{{- $root := .root -}}
{{- $fullname := include "daf.fullname" $root -}}
- name: DAF_BACKEND
  value: kubernetes
- name: DAF_INSTANCE
  value: {{ $root.Release.Name }}
- name: DAF_KUBERNETES_NAMESPACE
  value: {{ include "daf.jobsNamespace" $root }}
- name: DAF_KUBERNETES_OWNER
  value: {{ $fullname }}-anchor
- name: DAF_RUNNER_IMAGE
  value: {{ include "daf.image" (dict "root" $root "image" "runner") }}
- name: DAF_RUNNER_PULL_POLICY
  value: {{ $root.Values.image.pullPolicy }}
- name: DAF_WORKER_ADDRESS
  value: {{ $fullname }}-{{ .component }}.{{ $root.Release.Namespace }}:50051
- name: DAF_PODS
  value: {{ include "daf.pods" $root | fromYaml | toJson | quote }}
{{- end -}}

{{- define "daf.environment.training" -}}
{{- if .Values.networkPolicy.enabled }}
- name: DAF_KUBERNETES_NETWORK_POLICIES
  value: "true"
{{- end }}
{{- range list "CPUS" "MEMORY_GIB" "GPUS" }}
- name: DAF_TRAINING_{{ . }} # Kubernetes admits
  value: none
{{- end }}
- name: DAF_CANCEL_GRACE_SECONDS # to save to the artifact store
  value: "30"
- name: DAF_TRAINING_PROFILE
  value: {{ .Values.defaultProfile }}
{{- with include "daf.profiles" . | fromYamlArray }}
- name: DAF_TRAINING_PROFILES
  value: {{ toJson . | quote }}
{{- end }}
{{- end -}}

{{/* Placement of jobs' pods, the JSON of DAF_PODS: of all, and whole for each profile that has more. */}}
{{- define "daf.pods" -}}
{{- $all := include "daf.placement" .Values.jobs.pods | fromYaml -}}
{{- with .Values.jobs.queue -}}
{{- $_ := set $all "labels" (merge (dict "kueue.x-k8s.io/queue-name" .) (default dict $all.labels)) -}}
{{- end -}}
{{- with .Values.image.pullSecrets -}}
{{- $_ := set $all "image_pull_secrets" . -}}
{{- end -}}
{{- if include "daf.authorities" . -}}
{{- $source := include "daf.authorities.source" (dict "root" . "copy" "-jobs") -}}
{{- $_ := set $all "certificate_authorities" (dict "config_map" $source "key" .Values.certificateAuthorities.key) -}}
{{- end -}}
{{- $profiles := dict -}}
{{- range $name, $profile := .Values.profiles -}}
{{- with $profile.pods -}}
{{- $own := include "daf.placement" . | fromYaml -}}
{{- $tolerations := concat (default list $all.tolerations) (default list $own.tolerations) -}}
{{- $_ := set $profiles $name (mergeOverwrite (deepCopy $all) $own (ternary (dict "tolerations" $tolerations) dict (gt (len $tolerations) 0))) -}}
{{- end -}}
{{- end -}}
{{- dict "default" $all "profiles" $profiles | toYaml -}}
{{- end -}}

{{/* What is said, and only that. Takes `pods` of jobs or of a profile. */}}
{{- define "daf.placement" -}}
{{- $placement := dict -}}
{{- $names := dict "nodeSelector" "node_selector" "priorityClassName" "priority_class_name" "runtimeClassName" "runtime_class_name" "scratchGiB" "scratch_gib" "activeDeadlineSeconds" "active_deadline_seconds" "cpuShare" "cpu_share" "graceSeconds" "grace_seconds" -}}
{{- range $name, $value := . -}}
{{- if $value -}}
{{- $_ := set $placement (get $names $name | default $name) $value -}}
{{- end -}}
{{- end -}}
{{- toYaml $placement -}}
{{- end -}}

{{/* The list of DAF_TRAINING_PROFILES, without those that only place pods. */}}
{{- define "daf.profiles" -}}
{{- $profiles := list -}}
{{- $names := dict "memoryGiB" "memory_gib" "workersPerMachine" "workers_per_machine" -}}
{{- range $name, $profile := .Values.profiles -}}
{{- $fields := omit $profile "pods" -}}
{{- if $fields -}}
{{- $compute := dict "name" $name -}}
{{- range $field, $value := $fields -}}
{{- $_ := set $compute (get $names $field | default $field) $value -}}
{{- end -}}
{{- $profiles = append $profiles $compute -}}
{{- end -}}
{{- end -}}
{{- toYaml $profiles -}}
{{- end -}}

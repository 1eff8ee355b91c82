{{/* The five services differ in little: whom they call, whether they touch artifacts, whether they start workloads. */}}

{{/* What a service needs, as YAML. Takes the service's name. */}}
{{- define "daf.needs" -}}
{{- if eq . "scheduler" }}
peers: [training, evaluation, statistics]
callers: [gateway]
{{- else if eq . "training" }}
peers: [statistics]
callers: [gateway, scheduler]
artifacts: true
workloads: true
{{- else if eq . "evaluation" }}
peers: [statistics]
callers: [gateway, scheduler]
artifacts: true
workloads: true
{{- else if eq . "statistics" }}
peers: []
callers: [gateway, scheduler, training, evaluation]
{{- else if eq . "deployment" }}
peers: []
callers: [gateway]
artifacts: true
{{- end }}
{{- end -}}

{{/* Takes (root, component). */}}
{{- define "daf.service.deployment" -}}
{{- $root := .root -}}
{{- $values := get $root.Values .component -}}
{{- $needs := include "daf.needs" .component | fromYaml -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "daf.metadata" . | nindent 2 }}
spec:
  replicas: {{ $values.replicas }}
  revisionHistoryLimit: 3
  {{- include "daf.rolling" . | nindent 2 }}
  selector:
    matchLabels:
      {{- include "daf.selector" . | nindent 6 }}
  template:
    metadata:
      {{- include "daf.podMetadata" (merge (dict "metrics" true) (include "daf.authorities.checksums" $root | fromYaml) .) | nindent 6 }}
    spec:
      {{- include "daf.podSpec" . | nindent 6 }}
      {{- include "daf.topologySpread" . | nindent 6 }}
      serviceAccountName: {{ include "daf.fullname" $root }}-{{ .component }}
      automountServiceAccountToken: {{ default false $needs.workloads }}
      terminationGracePeriodSeconds: 45 # preStop, DAF_DRAIN_SECONDS, and time to give a lease back
      {{- include "daf.authorities.initContainers" (dict "root" $root "image" .component) | nindent 6 }}
      containers:
        - name: {{ .component }}
          image: {{ include "daf.image" (dict "root" $root "image" .component) }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          {{- include "daf.containerSecurity" . | nindent 10 }}
          {{- include "daf.preStop" . | nindent 10 }}
          ports:
            - {name: grpc, containerPort: 50051}
            - {name: metrics, containerPort: 9090}
          env:
            {{- include "daf.service.environment" . | nindent 12 }}
          {{- with $root.Values.artifacts.existingSecret }}
          {{- if $needs.artifacts }}
          envFrom:
            - secretRef: {name: {{ . }}}
          {{- end }}
          {{- end }}
          {{- include "daf.grpcProbes" . | nindent 10 }}
          resources:
            {{- toYaml $values.resources | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            - {name: work, mountPath: /work}
            {{- include "daf.tokenMount" $root | nindent 12 }}
            {{- include "daf.authorities.mount" $root | nindent 12 }}
      volumes:
        - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
        - {name: work, emptyDir: {sizeLimit: 4Gi}}
        {{- include "daf.tokenVolume" $root | nindent 8 }}
        {{- include "daf.authorities.volumes" (dict "root" $root "copy" "") | nindent 8 }}
{{- end -}}

{{- define "daf.grpcProbes" -}}
startupProbe: # until the database is as new as the code
  grpc: {port: 50051}
  periodSeconds: 2
  failureThreshold: 90
readinessProbe:
  grpc: {port: 50051}
  periodSeconds: 5
  timeoutSeconds: 5
livenessProbe:
  grpc: {port: 50051}
  periodSeconds: 20
  timeoutSeconds: 10
  failureThreshold: 6
{{- end -}}

{{/* Takes (root, component). */}}
{{- define "daf.service.service" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "daf.metadata" . | nindent 2 }}
spec:
  selector:
    {{- include "daf.selector" . | nindent 4 }}
  ports:
    - {name: grpc, port: 50051, targetPort: grpc, appProtocol: kubernetes.io/h2c}
    - {name: metrics, port: 9090, targetPort: metrics, appProtocol: http}
{{- end -}}

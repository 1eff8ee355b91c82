{{/* A company's own certificate authorities. What TLS libraries are told by variables they trust in the place of the public ones,
so an init container writes both to one file; `daf_common.kube.authorities` does the same with the pods of jobs. */}}

{{/* Whether there are any: "true" or nothing. */}}
{{- define "daf.authorities" -}}
{{- $given := .Values.certificateAuthorities -}}
{{- if and $given.pem $given.configMap }}
{{- fail "certificateAuthorities takes pem or configMap, not both: leave one empty" }}
{{- end }}
{{- if contains "PRIVATE KEY-----" $given.pem }}
{{- fail "certificateAuthorities.pem holds a private key: give certificates alone" }}
{{- end }}
{{- if or $given.pem $given.configMap }}true{{ end -}}
{{- end -}}

{{/* The name of a ConfigMap with them. Takes (root, copy: of `pem`, which has three). */}}
{{- define "daf.authorities.source" -}}
{{- default (printf "%s-authorities%s" (include "daf.fullname" .root) .copy) .root.Values.certificateAuthorities.configMap -}}
{{- end -}}

{{/* One of them. Takes (root, component, copy, namespace). */}}
{{- define "daf.authorities.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "daf.authorities.source" . }}
  namespace: {{ .namespace }}
  labels:
    {{- include "daf.labels" . | nindent 4 }}
  {{- with .annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
data:
  {{ .root.Values.certificateAuthorities.key }}: |
    {{- .root.Values.certificateAuthorities.pem | nindent 4 }}
{{- end -}}

{{/* Takes (root, image). */}}
{{- define "daf.authorities.initContainers" -}}
{{- if include "daf.authorities" .root }}
initContainers:
  - name: authorities
    image: {{ include "daf.image" . }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: [awk, '{ print >"/etc/daf/authorities/ca.crt" }', /etc/ssl/certs/ca-certificates.crt, /run/daf/given-authorities/ca.crt]
    {{- include "daf.containerSecurity" . | nindent 4 }}
    resources:
      requests: {cpu: 10m, memory: 16Mi}
      limits: {memory: 64Mi}
    volumeMounts:
      - {name: authorities, mountPath: /etc/daf/authorities}
      - {name: given-authorities, mountPath: /run/daf/given-authorities, readOnly: true}
{{- end }}
{{- end -}}

{{- define "daf.authorities.mount" -}}
{{- if include "daf.authorities" . -}}
- {name: authorities, mountPath: /etc/daf/authorities, readOnly: true}
{{- end -}}
{{- end -}}

{{/* Takes (root, copy). */}}
{{- define "daf.authorities.volumes" -}}
{{- if include "daf.authorities" .root -}}
- {name: authorities, emptyDir: {sizeLimit: 8Mi}}
- name: given-authorities
  configMap:
    name: {{ include "daf.authorities.source" . }}
    items: [{key: {{ .root.Values.certificateAuthorities.key | quote }}, path: ca.crt}]
{{- end -}}
{{- end -}}

{{- define "daf.authorities.environment" -}}
{{- if include "daf.authorities" . -}}
{{- range list "SSL_CERT_FILE" "AWS_CA_BUNDLE" "REQUESTS_CA_BUNDLE" }}
- name: {{ . }}
  value: /etc/daf/authorities/ca.crt
{{- end }}
{{- end -}}
{{- end -}}

{{/* Pods are made anew when they change: takes the root, gives (checksums) for their metadata. */}}
{{- define "daf.authorities.checksums" -}}
{{- with .Values.certificateAuthorities.pem }}
checksums: {authorities: {{ sha256sum . }}}
{{- end }}
{{- end -}}

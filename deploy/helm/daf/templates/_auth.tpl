{{/* Tokens and certificates: by reference, or made once and kept. */}}

{{- define "daf.tokensSecret" -}}
{{- default (printf "%s-tokens" (include "daf.fullname" .)) .Values.auth.existingSecret -}}
{{- end -}}

{{- define "daf.tokenMount" -}}
{{- if .Values.auth.enabled -}}
- {name: tokens, mountPath: /etc/daf/tokens, readOnly: true}
{{- end -}}
{{- end -}}

{{- define "daf.tokenVolume" -}}
{{- if .Values.auth.enabled -}}
- {name: tokens, secret: {secretName: {{ include "daf.tokensSecret" . }}, defaultMode: 0440}}
{{- end -}}
{{- end -}}

{{- define "daf.tlsSecret" -}}
{{- default (printf "%s-gateway-tls" (include "daf.fullname" .)) .Values.gateway.tls.existingSecret -}}
{{- end -}}

{{/* Whether the chart makes the certificate itself: "true" or nothing. */}}
{{- define "daf.ownCertificate" -}}
{{- $tls := .Values.gateway.tls -}}
{{- if and $tls.enabled (not $tls.existingSecret) (not $tls.certManager.issuer) }}true{{ end -}}
{{- end -}}

{{- define "daf.gatewayHost" -}}
{{ include "daf.fullname" . }}-gateway.{{ .Release.Namespace }}.svc
{{- end -}}

{{/* Names that a certificate is made for: those in the cluster, those of port-forward, and those that values give. */}}
{{- define "daf.gatewayNames" -}}
{{- $service := printf "%s-gateway" (include "daf.fullname" .) -}}
{{- $host := include "daf.gatewayHost" . -}}
{{- concat (list $host (printf "%s.cluster.local" $host) (printf "%s.%s" $service .Release.Namespace) $service "localhost" "127.0.0.1") .Values.gateway.hosts | uniq | toJson -}}
{{- end -}}

{{/* Whether a host is an IP address: "true" or nothing. */}}
{{- define "daf.isAddress" -}}
{{- if or (regexMatch "^[0-9.]+$" .) (contains ":" .) }}true{{ end -}}
{{- end -}}

{{/* Where `helm test` calls: the gateway; where that speaks plain text, over which no token is sent, what lies before it. Empty
if neither can be. */}}
{{- define "daf.testAddress" -}}
{{- if .Values.gateway.tls.enabled -}}
https://{{ include "daf.gatewayHost" . }}:443
{{- else if not .Values.auth.enabled -}}
http://{{ include "daf.gatewayHost" . }}:80
{{- else if .Values.gateway.hosts -}}
https://{{ first .Values.gateway.hosts }}
{{- end -}}
{{- end -}}

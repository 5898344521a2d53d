{{- define "ecr-sidecar.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "ecr-sidecar.fullname" -}}
{{- $name := include "ecr-sidecar.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "ecr-sidecar.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "ecr-sidecar.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "ecr-sidecar.labels" -}}
app.kubernetes.io/name: {{ include "ecr-sidecar.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Of the pods: the user's labels, with ours on top. */}}
{{- define "ecr-sidecar.podLabels" -}}
{{- $labels := include "ecr-sidecar.labels" . | fromYaml }}
{{- if .Values.metrics.enabled }}{{ $_ := set $labels "ecr-sidecar/health" "open" }}{{ end }}
{{- toYaml (merge $labels .Values.podLabels) }}
{{- end }}

{{- define "ecr-sidecar.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end }}
{{- end }}
{{- end }}

{{/* Values that fit the schema and yet contradict each other. */}}
{{- define "ecr-sidecar.check" -}}
{{- $identity := .Values.identity }}
{{- if and (eq $identity.type "irsa") (not .Values.serviceAccount.create) }}
{{- fail "identity.type irsa annotates the service account, but serviceAccount.create is false: annotate yours with eks.amazonaws.com/role-arn, and leave out identity" }}
{{- end }}
{{- if and $identity.roleArn (not (has $identity.type (list "irsa" "web-identity"))) }}
{{- fail (printf "identity.roleArn is set, but with identity.type %s it has no effect: set the type to irsa or web-identity, or leave out roleArn" $identity.type) }}
{{- end }}
{{- if eq .Values.mode "cronjob" }}
{{- if .Values.metrics.enabled }}
{{- fail "metrics.enabled has no effect with mode cronjob, which runs no permanent pod: use mode deployment, or leave out metrics" }}
{{- end }}
{{- end }}
{{- if not .Values.metrics.enabled }}
{{- range $name := list "podMonitor" "prometheusRule" }}
{{- if (index $.Values.metrics $name).enabled }}
{{- fail (printf "metrics.%s.enabled needs metrics.enabled, which opens the endpoint that it is about" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/*
The pod spec, of `root`, with `args` of the program. Optional: `restartPolicy`, `probes` (it runs permanently).
*/}}
{{- define "ecr-sidecar.podSpec" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $identity := $values.identity -}}
serviceAccountName: {{ include "ecr-sidecar.serviceAccountName" $root }}
enableServiceLinks: false # do not set variables for the namespace's Services
{{- with .restartPolicy }}
restartPolicy: {{ . }}
{{- end }}
{{- if .probes }}
terminationGracePeriodSeconds: 10
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- range $key := list "imagePullSecrets" "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
{{- with index $values $key }}
{{ $key }}: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  seccompProfile: {type: RuntimeDefault}
containers:
  - name: ecr-sidecar
    image: {{ include "ecr-sidecar.image" $root }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    args: {{ toJson .args }}
    env:
      - {name: ECR_SIDECAR_CONFIG, value: /etc/ecr-sidecar/config/config.yaml}
      {{- if eq $identity.type "web-identity" }}
      - {name: AWS_ROLE_ARN, value: {{ $identity.roleArn | quote }}}
      - {name: AWS_WEB_IDENTITY_TOKEN_FILE, value: /var/run/secrets/ecr-sidecar/token}
      {{- else if eq $identity.type "static-keys" }}
      - {name: AWS_SHARED_CREDENTIALS_FILE, value: /etc/ecr-sidecar/aws/credentials}
      {{- end }}
      {{- if and .probes $values.metrics.enabled }}
      - {name: ECR_SIDECAR_HEALTH_LISTEN, value: "[::]:9808"}
      {{- end }}
      {{- with $values.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- if .probes }}
    {{- if $values.metrics.enabled }}
    ports:
      - {name: ecr-sidecar, containerPort: 9808}
    {{- end }}
    startupProbe:
      exec: {command: [ecr-sidecar, health, startup]}
      periodSeconds: 2
      timeoutSeconds: 5
      failureThreshold: 60
    livenessProbe:
      exec: {command: [ecr-sidecar, health, live]}
      periodSeconds: 30
      timeoutSeconds: 5
    # This pod serves no traffic: readiness shows whether every Secret has an unexpired credential.
    readinessProbe:
      exec: {command: [ecr-sidecar, health, ready]}
      periodSeconds: 30
      timeoutSeconds: 5
    {{- end }}
    {{- with $values.resources }}
    resources: {{ toYaml . | nindent 6 }}
    {{- end }}
    securityContext:
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL]}
      readOnlyRootFilesystem: true
    volumeMounts:
      - {name: config, mountPath: /etc/ecr-sidecar/config, readOnly: true}
      {{- if eq $identity.type "web-identity" }}
      - {name: aws-token, mountPath: /var/run/secrets/ecr-sidecar, readOnly: true}
      {{- else if eq $identity.type "static-keys" }}
      - {name: aws-keys, mountPath: /etc/ecr-sidecar/aws, readOnly: true}
      {{- end }}
      {{- with $values.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: config
    configMap: {name: {{ include "ecr-sidecar.fullname" $root }}}
  {{- if eq $identity.type "web-identity" }}
  - name: aws-token
    projected:
      sources:
        - serviceAccountToken: {audience: sts.amazonaws.com, expirationSeconds: 3600, path: token}
  {{- else if eq $identity.type "static-keys" }}
  - name: aws-keys
    secret: {secretName: {{ $identity.secretName | quote }}, defaultMode: 0444} # readable for any uid
  {{- end }}
  {{- with $values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

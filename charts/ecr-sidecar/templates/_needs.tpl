{{/*
What the outputs of the configuration need, as JSON: the same as src/manifests.rs finds, in the same terms.

    roles       namespace → the names of its Secrets
    everywhere  the name of Secrets wherever they are → {prune, excluded}
    byLabels    the namespaces in which Secrets are found by their labels
    secrets     namespace/name of the Secrets to create → the template's fields; of a docker config: none
*/}}
{{- define "ecr-sidecar.needs" -}}
{{- $needs := dict "roles" dict "everywhere" dict "byLabels" dict "secrets" dict }}
{{- range $index, $output := .Values.config.outputs }}
{{- $into := dict "needs" $needs "output" $output "place" (printf "config.outputs[%d]" $index) "root" $ }}
{{- if eq $output.type "docker-config-secret" }}
{{- include "ecr-sidecar.needs.dockerConfig" $into }}
{{- else if eq $output.type "argocd-repo-creds" }}
{{- include "ecr-sidecar.needs.repoCreds" $into }}
{{- else if eq $output.type "argocd-repositories" }}
{{- include "ecr-sidecar.needs.repositories" $into }}
{{- end }}
{{- end }}
{{- toJson $needs }}
{{- end }}

{{- define "ecr-sidecar.needs.dockerConfig" -}}
{{- $name := include "ecr-sidecar.secretName" (list .output.name (printf "%s.name" .place)) }}
{{- $namespaces := .output.namespaces | default dict }}
{{- $place := printf "%s.namespaces" .place }}
{{- if or $namespaces.all $namespaces.selector }}
{{- $excluded := list }}
{{- range $namespaces.exclude }}
{{- $excluded = append $excluded (include "ecr-sidecar.namespaceName" (list . (printf "%s.exclude" $place))) }}
{{- end }}
{{- $of := dict "prune" (.output.prune | default false) "excluded" ($excluded | uniq | sortAlpha) }}
{{- $_ := set .needs.everywhere $name $of }}
{{- else if $namespaces.names }}
{{- $needs := .needs }}
{{- range $namespaces.names }}
{{- $namespace := include "ecr-sidecar.namespaceName" (list . (printf "%s.names" $place)) }}
{{- include "ecr-sidecar.needs.secret" (list $needs $namespace $name dict) }}
{{- end }}
{{- else }}
{{- include "ecr-sidecar.needs.secret" (list .needs .root.Release.Namespace $name dict) }}
{{- end }}
{{- end }}

{{- define "ecr-sidecar.needs.repoCreds" -}}
{{- $namespace := include "ecr-sidecar.namespaceName" (list .output.namespace (printf "%s.namespace" .place)) }}
{{- if not .root.Values.config.registries }}
{{- fail (printf "%s: Argo CD's templates are named after their registries: list these in config.registries" .place) }}
{{- end }}
{{- $needs := .needs }}
{{- range .root.Values.config.registries }}
{{- $host := .host | trim | lower }}
{{- $stem := include "ecr-sidecar.templateStem" $host }}
{{- $helm := dict "url" $host "type" "helm" "enableOCI" "true" }}
{{- include "ecr-sidecar.needs.secret" (list $needs $namespace (printf "%s-helm" $stem) $helm) }}
{{- $oci := dict "url" (printf "oci://%s" $host) "type" "oci" }}
{{- include "ecr-sidecar.needs.secret" (list $needs $namespace (printf "%s-oci" $stem) $oci) }}
{{- end }}
{{- end }}

{{- define "ecr-sidecar.needs.repositories" -}}
{{- $namespace := include "ecr-sidecar.namespaceName" (list .output.namespace (printf "%s.namespace" .place)) }}
{{- if .output.selector }}
{{- $_ := set .needs.byLabels $namespace true }}
{{- else }}
{{- $place := .place }}
{{- $needs := .needs }}
{{- range .output.names }}
{{- $name := include "ecr-sidecar.secretName" (list . (printf "%s.names" $place)) }}
{{- include "ecr-sidecar.needs.named" (list $needs $namespace $name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* A Secret that is created beforehand: the needs, its namespace, its name, its fields. */}}
{{- define "ecr-sidecar.needs.secret" -}}
{{- include "ecr-sidecar.needs.named" . }}
{{- $_ := set (index . 0).secrets (printf "%s/%s" (index . 1) (index . 2)) (index . 3) }}
{{- end }}

{{/* A Secret that a Role names: the needs, its namespace, its name. */}}
{{- define "ecr-sidecar.needs.named" -}}
{{- $roles := (index . 0).roles }}
{{- $names := get $roles (index . 1) | default dict }}
{{- $_ := set $names (index . 2) true }}
{{- $_ := set $roles (index . 1) $names }}
{{- end }}

{{/* What Argo CD's templates of a registry are called: as src/output/argocd_names.rs does it. */}}
{{- define "ecr-sidecar.templateStem" -}}
{{- $region := "(?:us|eu|ap|sa|ca|me|af|il|mx|us-gov)-[a-z]+-[0-9]+\\.amazonaws\\.com" }}
{{- $region = printf "%s|cn-[a-z]+-[0-9]+\\.amazonaws\\.com\\.cn" $region }}
{{- $region = printf "%s|eusc-de-[a-z]+-[0-9]+\\.amazonaws\\.eu" $region }}
{{- $region = printf "%s|us-iso-[a-z]+-[0-9]+\\.c2s\\.ic\\.gov" $region }}
{{- $region = printf "%s|us-isob-[a-z]+-[0-9]+\\.sc2s\\.sgov\\.gov" $region }}
{{- $region = printf "%s|eu-isoe-[a-z]+-[0-9]+\\.cloud\\.adc-e\\.uk" $region }}
{{- $region = printf "%s|us-isof-[a-z]+-[0-9]+\\.csp\\.hci\\.ic\\.gov" $region }}
{{- if has . (list "public.ecr.aws" "ecr-public.aws.com") -}}
ecr-public
{{- else if regexMatch (printf "^[0-9]{12}\\.dkr\\.ecr\\.(?:%s)$" $region) . -}}
{{- $parts := splitList "." . -}}
ecr-{{ index $parts 0 }}-{{ index $parts 3 }}
{{- else -}}
ecr-{{ regexReplaceAll "[^a-z0-9]" . "-" | trunc 40 | trimAll "-" }}-{{ sha256sum . | trunc 8 }}
{{- end }}
{{- end }}

{{/* A Secret's name, and the place of the values where it is. */}}
{{- define "ecr-sidecar.secretName" -}}
{{- $name := index . 0 | trim }}
{{- if not (and (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" $name) (le (len $name) 253)) }}
{{- fail (printf "%s: %q is not a Secret's name: at most 253 lower-case letters, digits, `-` and `.`, with a letter or digit at each end of each part" (index . 1) $name) }}
{{- end }}
{{- $name }}
{{- end }}

{{/* A namespace's name, and the place of the values where it is. */}}
{{- define "ecr-sidecar.namespaceName" -}}
{{- $name := index . 0 | trim }}
{{- if not (and (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" $name) (le (len $name) 63)) }}
{{- fail (printf "%s: %q is not a namespace's name: at most 63 lower-case letters, digits and `-`, with a letter or digit at both ends" (index . 1) $name) }}
{{- end }}
{{- $name }}
{{- end }}

{{/* Names in quotes, for YAML and CEL. */}}
{{- define "ecr-sidecar.list" -}}
{{- range $index, $name := . }}{{ if $index }}, {{ end }}'{{ $name }}'{{ end }}
{{- end }}

{{/* What the roles are called: those of two service accounts must not share one. */}}
{{- define "ecr-sidecar.roleName" -}}
ecr-sidecar-{{ .Release.Namespace }}-{{ include "ecr-sidecar.serviceAccountName" . }}
{{- end }}

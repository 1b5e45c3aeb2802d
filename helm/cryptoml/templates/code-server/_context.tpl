{{- /*
What the pods of runs and steps are made like. The code server tells it with its code location, so
that Dagster's launcher and step executor make them as this release says: dagster-k8s's container
context.
*/ -}}
{{- define "cryptoml.containerContext" -}}
{{- $v := .Values -}}
{{- $labels := include "cryptoml.labels" (dict "root" . "component" "run") | fromYaml -}}
{{- /* Dagster says itself what is part of what, and which component it is. */ -}}
{{- $labels = pick $labels "cryptoml.io/environment" "helm.sh/chart" -}}
{{- $_ := set $labels "cryptoml.io/pod" "run" -}}
{{- $mounts := printf "%s\n%s\n%s\n%s" (include "cryptoml.writableMounts" .) (include "cryptoml.publicKeyMount" .) (include "cryptoml.signingKeyMount" .) (include "cryptoml.authorityMount" .) | fromYamlArray -}}
{{- $volumes := printf "%s\n%s\n%s\n%s" (include "cryptoml.tmpVolume" .) (include "cryptoml.publicKeyVolume" .) (include "cryptoml.signingKeyVolume" .) (include "cryptoml.authorityVolume" .) | fromYamlArray -}}
{{- $volumes = concat $volumes (include "cryptoml.dataVolume" (merge (dict "root" . "component" "run") $v.runs.data) | fromYamlArray) -}}
{{- $environment := include "cryptoml.graphEnvironment" . | fromYamlArray -}}
{{- if $v.runs.checkpointsClaim -}}
{{- $mounts = append $mounts (dict "name" "checkpoints" "mountPath" "/checkpoints") -}}
{{- $volumes = append $volumes (dict "name" "checkpoints" "persistentVolumeClaim" (dict "claimName" $v.runs.checkpointsClaim)) -}}
{{- $environment = append $environment (dict "name" "CRYPTOML_CHECKPOINTS" "value" "/checkpoints") -}}
{{- end -}}
{{- $pod := dict
  "securityContext" (include "cryptoml.podSecurity" . | fromYaml)
  "enableServiceLinks" false
  "automountServiceAccountToken" true
-}}
{{- with $v.runs.nodeSelector }}{{ $_ := set $pod "nodeSelector" . }}{{ end -}}
{{- with $v.runs.tolerations }}{{ $_ := set $pod "tolerations" . }}{{ end -}}
{{- $context := dict
  "namespace" .Release.Namespace
  "image_pull_policy" $v.codeServer.image.pullPolicy
  "image_pull_secrets" $v.imagePullSecrets
  "service_account_name" (include "cryptoml.serviceAccount" (dict "root" . "component" "run"))
  "env_config_maps" (list (printf "%s-settings" (include "cryptoml.fullname" .)))
  "env" $environment
  "volume_mounts" $mounts
  "volumes" $volumes
  "labels" $labels
  "resources" $v.runs.resources
  "security_context" (include "cryptoml.containerSecurity" . | fromYaml)
  "run_k8s_config" (dict
    "pod_spec_config" $pod
    "job_spec_config" (dict "ttlSecondsAfterFinished" $v.runs.ttlSecondsAfterFinished)
  )
-}}
{{- dict "k8s" $context | toJson -}}
{{- end -}}

{{- /* What the schema cannot say: values that do not go together. All of them are told, each by name. */ -}}
{{- define "cryptoml.validate" -}}
{{- $v := .Values -}}
{{- $wrong := list -}}
{{- $issuer := get $v.settings "CRYPTOML_SERVING_JWT_ISSUER" | default (get $v.serving.settings "CRYPTOML_SERVING_JWT_ISSUER") -}}
{{- if and (not $v.serving.auth.keysSecret.name) (not $issuer) -}}
{{- $wrong = append $wrong "serving.auth.keysSecret.name is empty and settings.CRYPTOML_SERVING_JWT_ISSUER is not set: the service refuses to listen without authentication; set one of them" -}}
{{- end -}}
{{- if and $v.serving.autoscaling.enabled (gt (int $v.serving.autoscaling.minReplicas) (int $v.serving.autoscaling.maxReplicas)) -}}
{{- $wrong = append $wrong (printf "serving.autoscaling.minReplicas=%v is more than serving.autoscaling.maxReplicas=%v" $v.serving.autoscaling.minReplicas $v.serving.autoscaling.maxReplicas) -}}
{{- end -}}
{{- if and $v.serving.canary.enabled (not $v.ingress.enabled) (not $v.gateway.enabled) -}}
{{- $wrong = append $wrong "serving.canary.enabled=true, but neither ingress.enabled nor gateway.enabled: nothing would send it requests" -}}
{{- end -}}
{{- if and $v.gateway.enabled (not $v.gateway.parentRefs) -}}
{{- $wrong = append $wrong "gateway.enabled=true, but gateway.parentRefs is empty: name the Gateway that the route is attached to" -}}
{{- end -}}
{{- if and $v.mlflow.enabled (not $v.mlflow.artifacts) -}}
{{- $wrong = append $wrong "mlflow.enabled=true, but mlflow.artifacts is empty: where are artifacts kept, e.g. s3://bucket/mlflow?" -}}
{{- end -}}
{{- if and (not $v.serving.approvalPublicKey.configMap) (not $v.serving.approvalPublicKey.secret) -}}
{{- $wrong = append $wrong "serving.approvalPublicKey.configMap and .secret are both empty: without the key that verifies approvals nothing is served" -}}
{{- end -}}
{{- if and $v.serving.approvalPublicKey.configMap $v.serving.approvalPublicKey.secret -}}
{{- $wrong = append $wrong (printf "serving.approvalPublicKey.configMap=%s and serving.approvalPublicKey.secret=%s: set one of them" $v.serving.approvalPublicKey.configMap $v.serving.approvalPublicKey.secret) -}}
{{- end -}}
{{- if and $v.secrets.externalSecrets.enabled (not $v.secrets.externalSecrets.items) -}}
{{- $wrong = append $wrong "secrets.externalSecrets.enabled=true, but secrets.externalSecrets.items is empty: name the Secrets to make, e.g. {target: cryptoml-secrets, remoteKey: cryptoml/production}" -}}
{{- end -}}
{{- $places := dict "settings" $v.settings "serving.settings" $v.serving.settings "serving.canary.settings" $v.serving.canary.settings "codeServer.settings" $v.codeServer.settings "featureServer.settings" $v.featureServer.settings -}}
{{- range $place, $own := $places -}}
{{- range $held := list "CRYPTOML_HOME" "CRYPTOML_SERVING_HOST" "CRYPTOML_SERVING_PORT" "CRYPTOML_SERVING_ADMIN_HOST" "CRYPTOML_SERVING_ADMIN_PORT" "CRYPTOML_SERVING_DRAIN" "CRYPTOML_SERVING_WORKERS" "CRYPTOML_SERVING_KEYS" "CRYPTOML_SERVING_TLS_CERTIFICATE" "CRYPTOML_SERVING_TLS_KEY" -}}
{{- if hasKey $own $held -}}
{{- $wrong = append $wrong (printf "%s.%s is set, but this chart sets it from other values: see values.yaml" $place $held) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $wrong -}}
{{- fail (printf "values that do not go together:\n- %s" (join "\n- " $wrong)) -}}
{{- end -}}
{{- end -}}

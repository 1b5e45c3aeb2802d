{{- /* Which variables a component gets: the settings of all, its own, and the secrets it reads. */ -}}

{{- /* The settings of all components: what this chart knows by itself, under what the values say. */ -}}
{{- define "cryptoml.settings" -}}
{{- $name := include "cryptoml.fullname" . -}}
{{- $own := dict
  "CRYPTOML_HOME" "/data"
  "CRYPTOML_APPROVAL_PUBLIC_KEY" "/etc/cryptoml/approval/approval.pub"
  "CRYPTOML_INFERENCE_URL" (include "cryptoml.servingUrl" .)
  "CRYPTOML_INFERENCE_ADMIN_URLS" (include "cryptoml.servingAdminUrls" .)
  "CRYPTOML_EXECUTION" "kubernetes"
  "CRYPTOML_K8S_NAMESPACE" .Release.Namespace
  "CRYPTOML_K8S_SERVICE_ACCOUNT" (include "cryptoml.serviceAccount" (dict "root" . "component" "run"))
  "CRYPTOML_K8S_INSTANCE_CONFIG_MAP" (printf "%s-instance" (include "cryptoml.dagsterName" .))
  "CRYPTOML_K8S_SETTINGS" (printf "%s-settings" $name)
  "CRYPTOML_K8S_SECRETS" .Values.secrets.existingSecret
-}}
{{- if .Values.serving.tls.secretName -}}
{{- $_ := set $own "CRYPTOML_INFERENCE_CA_FILE" "/etc/cryptoml/authority/ca.crt" -}}
{{- end -}}
{{- if .Values.mlflow.enabled -}}
{{- $_ := set $own "CRYPTOML_TRACKING_URI" (printf "http://%s-mlflow:%v" $name .Values.mlflow.port) -}}
{{- end -}}
{{- toYaml (merge (dict) .Values.settings $own) -}}
{{- end -}}

{{- /* What Dagster's chart calls the objects of its release. */ -}}
{{- define "cryptoml.dagsterName" -}}
{{- ternary .Values.dagster.release (printf "%s-dagster" .Values.dagster.release) (contains "dagster" .Values.dagster.release) -}}
{{- end -}}

{{- define "cryptoml.settingsFrom" -}}
- configMapRef:
    name: {{ include "cryptoml.fullname" . }}-settings
{{- end -}}

{{- /* Variables out of the Secret: dict root, names. */ -}}
{{- define "cryptoml.secretEnvironment" -}}
{{- range .names }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ $.root.Values.secrets.existingSecret }}
      key: {{ . }}
      optional: true
{{- end }}
{{- end -}}

{{- /* Variables of a map, sorted by name. */ -}}
{{- define "cryptoml.environment" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end -}}

{{- /* The stores that every component reads. */ -}}
{{- define "cryptoml.storeSecrets" -}}
- CRYPTOML_TRACKING_URI
- CRYPTOML_ONLINE_STORE
- CRYPTOML_FEATURE_REGISTRY
- MLFLOW_TRACKING_USERNAME
- MLFLOW_TRACKING_PASSWORD
- MLFLOW_TRACKING_TOKEN
- AWS_ACCESS_KEY_ID
- AWS_SECRET_ACCESS_KEY
{{- end -}}

{{- /* What the asset graph reads besides: its database, and where notices go. */ -}}
{{- define "cryptoml.graphSecrets" -}}
{{ include "cryptoml.storeSecrets" . }}
- CRYPTOML_DAGSTER_POSTGRES_URL
- CRYPTOML_INFERENCE_KEY
- CRYPTOML_GRAFANA_TOKEN
- CRYPTOML_NOTIFY_SLACK_URL
- CRYPTOML_NOTIFY_TEAMS_URL
- CRYPTOML_NOTIFY_PAGERDUTY_KEY
- CRYPTOML_NOTIFY_WEBHOOK_URL
- CRYPTOML_NOTIFY_WEBHOOK_SECRET
- CRYPTOML_NOTIFY_SMTP
{{- end -}}

{{- /* What code server, exporter and runs have besides the settings. */ -}}
{{- define "cryptoml.graphEnvironment" -}}
{{- $names := include "cryptoml.graphSecrets" . | fromYamlArray -}}
{{- include "cryptoml.secretEnvironment" (dict "root" . "names" $names) }}
- name: DAGSTER_PG_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .Values.dagster.postgresqlSecret.name }}
      key: {{ .Values.dagster.postgresqlSecret.key }}
      optional: true
- name: CRYPTOML_APPROVAL_PRIVATE_KEY
  value: /etc/cryptoml/signing/approval.key
{{- end -}}

{{- /* A program that reads the settings of the graph but starts no runs, and has no password of Dagster. */ -}}
{{- define "cryptoml.startsNoRuns" -}}
- name: CRYPTOML_EXECUTION
  value: local
{{- end -}}

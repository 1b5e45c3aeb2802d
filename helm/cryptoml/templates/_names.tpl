{{- /* Names and labels. Components are told apart by app.kubernetes.io/component. */ -}}

{{- define "cryptoml.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "cryptoml.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "cryptoml.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "cryptoml.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* What a label may hold: a tag may have signs that it may not. */ -}}
{{- define "cryptoml.labelValue" -}}
{{- regexReplaceAll "[^A-Za-z0-9._-]" . "_" | trunc 63 | trimAll "-_." -}}
{{- end -}}

{{- /* Of every object: dict root, component. */ -}}
{{- define "cryptoml.labels" -}}
{{ include "cryptoml.selector" . }}
app.kubernetes.io/part-of: cryptoml
app.kubernetes.io/version: {{ include "cryptoml.labelValue" .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ include "cryptoml.labelValue" (printf "%s-%s" .root.Chart.Name .root.Chart.Version) }}
cryptoml.io/environment: {{ .root.Values.environment }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* What a component's pods are found by, which never changes: dict root, component. */ -}}
{{- define "cryptoml.selector" -}}
app.kubernetes.io/name: {{ include "cryptoml.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "cryptoml.serviceAccount" -}}
{{- printf "%s-%s" (include "cryptoml.fullname" .root) .component -}}
{{- end -}}

{{- /* registry/repository:tag@digest of dict root, image; the tag is the chart's version where none is given. */ -}}
{{- define "cryptoml.image" -}}
{{- $tag := default .root.Chart.AppVersion .image.tag -}}
{{- $registry := ternary (printf "%s/" .image.registry) "" (ne .image.registry "") -}}
{{- $digest := ternary (printf "@%s" .image.digest) "" (ne .image.digest "") -}}
{{- printf "%s%s:%s%s" $registry .image.repository $tag $digest -}}
{{- end -}}

{{- define "cryptoml.servingUrl" -}}
{{- $scheme := ternary "https" "http" (ne .Values.serving.tls.secretName "") -}}
{{- printf "%s://%s-serving:%v" $scheme (include "cryptoml.fullname" .) .Values.serving.service.port -}}
{{- end -}}

{{- /* Every worker of every pod: the name of the headless service is the addresses of them all. */ -}}
{{- define "cryptoml.servingAdminUrls" -}}
{{- $scheme := ternary "https" "http" (ne .Values.serving.tls.secretName "") -}}
{{- $urls := list -}}
{{- range $worker := until (int .Values.serving.workers) -}}
{{- $urls = append $urls (printf "%s://%s-serving-admin:%d" $scheme (include "cryptoml.fullname" $) (add 8001 $worker)) -}}
{{- end -}}
{{- join "," $urls -}}
{{- end -}}

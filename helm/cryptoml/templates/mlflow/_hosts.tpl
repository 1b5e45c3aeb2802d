{{- /* What MLflow is called in the Host header, with its port and without. */ -}}
{{- define "cryptoml.mlflowHosts" -}}
{{- $name := printf "%s-mlflow" (include "cryptoml.fullname" .) -}}
{{- $hosts := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) -}}
{{- $all := list -}}
{{- range concat $hosts .Values.mlflow.allowedHosts -}}
{{- $all = concat $all (list . (printf "%s:%v" . $.Values.mlflow.port)) -}}
{{- end -}}
{{- join "," $all -}}
{{- end -}}

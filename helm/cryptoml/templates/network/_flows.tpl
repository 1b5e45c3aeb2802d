{{- /* One end of a flow each, for `from` and `to`, and whole rules out to what the values name. */ -}}

{{- /* Pods of a component of this release: dict root, component. */ -}}
{{- define "cryptoml.peer" -}}
- podSelector:
    matchLabels:
      {{- include "cryptoml.selector" . | nindent 6 }}
{{- end -}}

{{- /* Pods of runs and steps, which Dagster starts. */ -}}
{{- define "cryptoml.runPeer" -}}
- podSelector:
    matchLabels:
      cryptoml.io/pod: run
{{- end -}}

{{- define "cryptoml.dagsterPeer" -}}
- podSelector:
    {{- include "cryptoml.dagsterSelector" . | nindent 4 }}
{{- end -}}

{{- define "cryptoml.dagsterSelector" -}}
matchLabels:
  app.kubernetes.io/name: dagster
  app.kubernetes.io/instance: {{ .Values.dagster.release }}
matchExpressions:
  - {key: component, operator: In, values: [dagster-webserver, dagster-daemon]}
{{- end -}}

{{- /* Pods of another namespace: dict namespaceLabels, podLabels. */ -}}
{{- define "cryptoml.foreignPeer" -}}
- namespaceSelector:
    matchLabels:
      {{- toYaml .namespaceLabels | nindent 6 }}
  {{- with .podLabels }}
  podSelector:
    matchLabels:
      {{- toYaml . | nindent 6 }}
  {{- end }}
{{- end -}}

{{- /* A rule out to addresses: dict cidrs, except, ports. */ -}}
{{- define "cryptoml.egressRule" -}}
- to:
    {{- $except := .except }}
    {{- range .cidrs }}
    - ipBlock:
        cidr: {{ . }}
        {{- with $except }}
        except: {{ toJson . }}
        {{- end }}
    {{- end }}
  ports:
    {{- range .ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end -}}

{{- /* Out to the stores: PostgreSQL, Redis, and over HTTPS the object store. */ -}}
{{- define "cryptoml.storeEgress" -}}
{{ include "cryptoml.egressRule" .Values.networkPolicy.postgresql }}
{{ include "cryptoml.egressRule" .Values.networkPolicy.redis }}
{{ include "cryptoml.egressRule" .Values.networkPolicy.internet }}
{{- if .Values.mlflow.enabled }}
- to:
    {{- include "cryptoml.peer" (dict "root" . "component" "mlflow") | nindent 4 }}
  ports:
    - {protocol: TCP, port: {{ .Values.mlflow.port }}}
{{- end }}
{{- end -}}

{{- /* Out to the inference service; the admin routes too where admin is set: dict root, admin. */ -}}
{{- define "cryptoml.servingEgress" -}}
- to:
    {{- include "cryptoml.peer" (dict "root" .root "component" "serving") | nindent 4 }}
  ports:
    - {protocol: TCP, port: 8000}
    {{- if .admin }}
    {{- include "cryptoml.adminPorts" .root | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "cryptoml.adminPorts" -}}
{{- range $worker := until (int .Values.serving.workers) }}
- {protocol: TCP, port: {{ add 8001 $worker }}}
{{- end }}
{{- end -}}

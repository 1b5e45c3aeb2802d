{{- /* What every pod and container has in common, so that none can be weaker than another. */ -}}

{{- /* The images' user. */ -}}
{{- define "cryptoml.uid" -}}10001{{- end -}}

{{- /* Of the pod's specification: dict root, component, and token where it asks the Kubernetes API. */ -}}
{{- define "cryptoml.pod" -}}
serviceAccountName: {{ include "cryptoml.serviceAccount" . }}
automountServiceAccountToken: {{ default false .token }}
# Kubernetes would set CRYPTOML_SERVING_PORT and the like for its services, which are settings here.
enableServiceLinks: false
securityContext:
  {{- include "cryptoml.podSecurity" . | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "cryptoml.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ include "cryptoml.uid" . }}
runAsGroup: {{ include "cryptoml.uid" . }}
fsGroup: {{ include "cryptoml.uid" . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "cryptoml.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- /* Where a component's pods may run: its values. */ -}}
{{- define "cryptoml.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Annotations of a pod: a change of the settings starts pods anew. dict root, values. */ -}}
{{- define "cryptoml.podAnnotations" -}}
checksum/settings: {{ include "cryptoml.settings" .root | sha256sum }}
{{- with .values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* The two folders that can be written. */ -}}
{{- define "cryptoml.writableMounts" -}}
- {name: data, mountPath: /data}
- {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "cryptoml.tmpVolume" -}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- end -}}

{{- define "cryptoml.publicKeyMount" -}}
- {name: approval-public, mountPath: /etc/cryptoml/approval, readOnly: true}
{{- end -}}

{{- define "cryptoml.publicKeyVolume" -}}
{{- $key := .Values.serving.approvalPublicKey -}}
- name: approval-public
{{- if $key.configMap }}
  configMap:
    name: {{ $key.configMap }}
{{- else }}
  secret:
    secretName: {{ $key.secret }}
    defaultMode: 0440
{{- end }}
    items: [{key: {{ $key.key }}, path: approval.pub}]
{{- end -}}

{{- define "cryptoml.signingKeyMount" -}}
- {name: signing, mountPath: /etc/cryptoml/signing, readOnly: true}
{{- end -}}

{{- define "cryptoml.signingKeyVolume" -}}
- name: signing
  secret:
    secretName: {{ .Values.runs.signingKeySecret.name }}
    defaultMode: 0440
    items: [{key: {{ .Values.runs.signingKeySecret.key }}, path: approval.key}]
{{- end -}}

{{- /* What a caller of the inference service needs: its key, and the authority of its certificate. */ -}}
{{- define "cryptoml.clientMount" -}}
{{- if or .Values.serving.auth.keysSecret.name .Values.serving.tls.secretName }}
- {name: client, mountPath: /etc/cryptoml/client, readOnly: true}
{{- end }}
{{- end -}}

{{- define "cryptoml.clientVolume" -}}
{{- $auth := .Values.serving.auth }}
{{- if or $auth.keysSecret.name .Values.serving.tls.secretName }}
- name: client
  projected:
    defaultMode: 0440
    sources:
      {{- if $auth.keysSecret.name }}
      - secret:
          name: {{ $auth.clientKeySecret.name }}
          items: [{key: {{ $auth.clientKeySecret.key }}, path: key}]
      {{- end }}
      {{- with .Values.serving.tls.secretName }}
      - secret:
          name: {{ . }}
          items: [{key: ca.crt, path: ca.crt}]
      {{- end }}
{{- end }}
{{- end -}}

{{- /* Who vouches for the service's certificate, for code server, exporter and runs. */ -}}
{{- define "cryptoml.authorityMount" -}}
{{- if .Values.serving.tls.secretName -}}
- {name: authority, mountPath: /etc/cryptoml/authority, readOnly: true}
{{- end -}}
{{- end -}}

{{- define "cryptoml.authorityVolume" -}}
{{- with .Values.serving.tls.secretName -}}
- name: authority
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items: [{key: ca.crt, path: ca.crt}]
{{- end -}}
{{- end -}}

{{- /* The command that asks the service for a prediction of every symbol. */ -}}
{{- define "cryptoml.smokeCommand" -}}
{{- $command := list "cryptoml" "smoke" "--url" (include "cryptoml.servingUrl" .) -}}
{{- if .Values.serving.auth.keysSecret.name }}{{ $command = concat $command (list "--key-file" "/etc/cryptoml/client/key") }}{{ end -}}
{{- if .Values.serving.tls.secretName }}{{ $command = concat $command (list "--ca-file" "/etc/cryptoml/client/ca.crt") }}{{ end -}}
{{- toJson $command -}}
{{- end -}}

{{- /* A folder that goes with its pod: dict root, type (emptyDir or claim), size, storageClassName, component. */ -}}
{{- define "cryptoml.dataVolume" -}}
- name: data
{{- if eq .type "claim" }}
  ephemeral:
    volumeClaimTemplate:
      metadata:
        labels:
          {{- include "cryptoml.labels" . | nindent 10 }}
      spec:
        accessModes: [ReadWriteOnce]
        {{- with .storageClassName }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests: {storage: {{ .size }}}
{{- else }}
  emptyDir: {sizeLimit: {{ .size }}}
{{- end }}
{{- end -}}

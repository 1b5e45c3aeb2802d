{{- /*
The inference service's deployment, for the stable track and the canary alike:
dict root, track, image, settings, replicas (none where an autoscaler sets it).
*/ -}}
{{- define "cryptoml.servingDeployment" -}}
{{- $v := .root.Values.serving -}}
{{- $labels := dict "root" .root "component" "serving" -}}
{{- $scheme := ternary "HTTPS" "HTTP" (ne $v.tls.secretName "") -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "cryptoml.fullname" .root }}-serving{{ if ne .track "stable" }}-{{ .track }}{{ end }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "cryptoml.labels" $labels | nindent 4 }}
    cryptoml.io/track: {{ .track }}
spec:
  {{- if .replicas }}
  replicas: {{ .replicas }}
  {{- end }}
  # A pod that answers is never taken before another does.
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  minReadySeconds: 5
  revisionHistoryLimit: 5
  progressDeadlineSeconds: 600
  selector:
    matchLabels:
      {{- include "cryptoml.selector" $labels | nindent 6 }}
      cryptoml.io/track: {{ .track }}
  template:
    metadata:
      labels:
        {{- include "cryptoml.labels" $labels | nindent 8 }}
        cryptoml.io/track: {{ .track }}
      annotations:
        {{- include "cryptoml.podAnnotations" (dict "root" .root "values" $v) | nindent 8 }}
    spec:
      {{- include "cryptoml.pod" $labels | nindent 6 }}
      # The drain, 10 s for requests in flight and 5 s to put predictions on disk.
      terminationGracePeriodSeconds: {{ add $v.drainSeconds 15 }}
      {{- include "cryptoml.servingPlacement" . | nindent 6 }}
      containers:
        - name: serving
          image: {{ include "cryptoml.image" (dict "root" .root "image" .image) | quote }}
          imagePullPolicy: {{ .image.pullPolicy }}
          command: [python, -m, cryptoml_serving]
          securityContext:
            {{- include "cryptoml.containerSecurity" . | nindent 12 }}
          envFrom:
            {{- include "cryptoml.settingsFrom" .root | nindent 12 }}
          env:
            {{- include "cryptoml.servingEnvironment" . | nindent 12 }}
          ports:
            - {name: http, containerPort: 8000, protocol: TCP}
            {{- range $worker := until (int $v.workers) }}
            - {name: admin{{ if $worker }}-{{ $worker }}{{ end }}, containerPort: {{ add 8001 $worker }}, protocol: TCP}
            {{- end }}
          # It listens at once; that it cannot predict yet is no reason to start it again.
          startupProbe:
            httpGet: {path: /health, port: http, scheme: {{ $scheme }}}
            periodSeconds: 2
            failureThreshold: 60
          livenessProbe:
            httpGet: {path: /health, port: http, scheme: {{ $scheme }}}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
          readinessProbe:
            httpGet: {path: /ready, port: http, scheme: {{ $scheme }}}
            periodSeconds: 2
            timeoutSeconds: 2
            failureThreshold: 3
          resources:
            {{- include "cryptoml.servingResources" .root | nindent 12 }}
          volumeMounts:
            {{- include "cryptoml.writableMounts" . | nindent 12 }}
            {{- include "cryptoml.publicKeyMount" . | nindent 12 }}
            {{- if $v.auth.keysSecret.name }}
            - {name: keys, mountPath: /etc/cryptoml/keys, readOnly: true}
            {{- end }}
            {{- if $v.tls.secretName }}
            - {name: tls, mountPath: /etc/cryptoml/tls, readOnly: true}
            {{- end }}
      volumes:
        {{- include "cryptoml.servingVolumes" .root | nindent 8 }}
{{- end -}}

{{- define "cryptoml.servingEnvironment" -}}
{{- $v := .root.Values.serving -}}
{{- $own := dict
  "CRYPTOML_SERVING_HOST" "0.0.0.0"
  "CRYPTOML_SERVING_PORT" "8000"
  "CRYPTOML_SERVING_ADMIN_HOST" "0.0.0.0"
  "CRYPTOML_SERVING_ADMIN_PORT" "8001"
  "CRYPTOML_SERVING_WORKERS" $v.workers
  "CRYPTOML_SERVING_DRAIN" (printf "%vs" $v.drainSeconds)
  "CRYPTOML_SERVING_DEVICE" (ternary "cuda" "cpu" $v.gpu.enabled)
-}}
{{- if $v.auth.keysSecret.name }}{{ $_ := set $own "CRYPTOML_SERVING_KEYS" "/etc/cryptoml/keys/keys.json" }}{{ end -}}
{{- if $v.tls.secretName -}}
{{- $_ := set $own "CRYPTOML_SERVING_TLS_CERTIFICATE" "/etc/cryptoml/tls/tls.crt" -}}
{{- $_ := set $own "CRYPTOML_SERVING_TLS_KEY" "/etc/cryptoml/tls/tls.key" -}}
{{- end -}}
{{- $names := include "cryptoml.storeSecrets" .root | fromYamlArray -}}
{{- include "cryptoml.secretEnvironment" (dict "root" .root "names" $names) -}}
{{- include "cryptoml.environment" (merge (dict) .settings $v.settings $own) -}}
{{- end -}}

{{- define "cryptoml.servingResources" -}}
{{- $resources := deepCopy .Values.serving.resources -}}
{{- if .Values.serving.gpu.enabled -}}
{{- $_ := set $resources.limits "nvidia.com/gpu" (toString .Values.serving.gpu.count) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- define "cryptoml.servingPlacement" -}}
{{- $v := .root.Values.serving -}}
{{- $selector := include "cryptoml.selector" (dict "root" .root "component" "serving") -}}
{{- $placement := deepCopy (pick $v "priorityClassName" "nodeSelector" "tolerations") -}}
{{- if $v.gpu.enabled -}}
{{- $_ := set $placement "nodeSelector" (merge (dict) $v.nodeSelector $v.gpu.nodeSelector) -}}
{{- $_ := set $placement "tolerations" (concat $v.tolerations $v.gpu.tolerations) -}}
{{- with $v.gpu.runtimeClassName }}
runtimeClassName: {{ . }}
{{ end -}}
{{- end -}}
{{- include "cryptoml.placement" $placement }}
affinity:
  podAntiAffinity:
    {{- if eq $v.antiAffinity "hard" }}
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        # As below, from Kubernetes 1.31 on; before, an upgrade takes a node more than there are pods.
        matchLabelKeys: [pod-template-hash]
        labelSelector:
          matchLabels:
            {{- $selector | nindent 12 }}
            cryptoml.io/track: {{ .track }}
    {{- else }}
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- $selector | nindent 14 }}
              cryptoml.io/track: {{ .track }}
    {{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: {{ ternary "DoNotSchedule" "ScheduleAnyway" (eq $v.zoneSpread "hard") }}
    # Of this revision's pods alone: those that are about to go do not count.
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
        cryptoml.io/track: {{ .track }}
{{- end -}}

{{- define "cryptoml.servingVolumes" -}}
{{- $v := .Values.serving -}}
{{ include "cryptoml.dataVolume" (merge (dict "root" . "component" "serving") $v.data) }}
{{ include "cryptoml.tmpVolume" . }}
{{ include "cryptoml.publicKeyVolume" . }}
{{- with $v.auth.keysSecret }}
{{- if .name }}
- name: keys
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items: [{key: {{ .key }}, path: keys.json}]
{{- end }}
{{- end }}
{{- with $v.tls.secretName }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end -}}

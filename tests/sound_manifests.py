"""Manifests in which nothing is found, and the ways in which a test spoils them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from typing import Any

import yaml

from cryptoml_assets.operations.manifest_check.check import Report, check
from cryptoml_assets.operations.manifest_check.manifests import read

SOUND = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop}
automountServiceAccountToken: false
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: launcher, namespace: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: web
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: web
          image: registry.example:5000/web:1.2.3@sha256:0123456789abcdef
          args: [--port=8000, --token-file=/run/token]
          env:
            - {name: CRYPTOML_SERVING_KEYS, value: /run/keys/keys.json}
            - {name: CRYPTOML_SERVING_TLS_KEY, value: /run/tls/tls.key}
            - {name: CRYPTOML_ONLINE_STORE, value: "redis://:$(PASSWORD)@redis:6379/0"}
            - {name: PASSWORD, valueFrom: {secretKeyRef: {name: redis, key: password}}}
          ports: [{name: http, containerPort: 8000}]
          resources: {limits: {cpu: "1", memory: 1Gi}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
      volumes: [{name: data, emptyDir: {}}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: launcher, namespace: shop}
spec:
  jobTemplate:
    spec:
      template:
        metadata: {labels: {app: launcher}}
        spec:
          serviceAccountName: launcher
          containers:
            - name: launcher
              image: launcher@sha256:0123456789abcdef
              resources: {requests: {cpu: 1m, memory: 1Mi}, limits: {cpu: "1", memory: 1Gi}}
              securityContext:
                runAsNonRoot: true
                runAsUser: 10001
                seccompProfile: {type: Localhost, localhostProfile: a.json}
                allowPrivilegeEscalation: false
                readOnlyRootFilesystem: true
                capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: launcher, namespace: shop}
rules:
  - {apiGroups: [batch], resources: [jobs], verbs: [create, get, delete]}
  - {apiGroups: [""], resources: [secrets], resourceNames: [database], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: launcher, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: launcher}
subjects: [{kind: ServiceAccount, name: launcher, namespace: shop}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: all, namespace: shop}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app: gate}}}], ports: [{port: 8000}]}]
  egress:
    - {to: [{namespaceSelector: {}}], ports: [{port: 53, protocol: UDP}]}
    - to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 169.254.0.0/16]}}]
      ports: [{port: 443}]
---
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  annotations: {service.beta.kubernetes.io/aws-load-balancer-scheme: internal}
spec: {type: LoadBalancer, ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec: {tls: [{hosts: [a.example], secretName: tls}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
data:
  CRYPTOML_LAKE: s3://bucket/lake
  CRYPTOML_APPROVAL_PUBLIC_KEY: ssh-like-words-of-a-public-key
  settings.yaml: "url: https://user@host/path"
---
apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata: {name: database, namespace: shop}
spec: {data: [{secretKey: password, remoteRef: {key: database, property: password}}]}
---
apiVersion: v1
kind: Secret
metadata: {name: filled-by-others, namespace: shop}
data: {password: ""}
"""
WEB = "Deployment shop/web"
AT = "spec.template.spec"

Change = Callable[[dict[str, Any]], None]


PARSED = list(yaml.safe_load_all(SOUND))


def objects() -> list[dict[str, Any]]:
    return copy.deepcopy(PARSED)


def written(found: Iterable[Any]) -> str:
    """What a file of these objects holds: JSON is YAML."""
    return "\n---\n".join(json.dumps(each, ensure_ascii=False) for each in found)


def named(found: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    return next(e for e in found if e["kind"] == kind and name in e["metadata"]["name"])


def look(*found: dict[str, Any]) -> Report:
    return check(read(written(found), "a.yaml"))


def on(kind: str, change: Change, name: str = "") -> Callable[[list[dict[str, Any]]], None]:
    return lambda found: change(named(found, kind, name))


def pod(**changes: Any) -> Callable[[list[dict[str, Any]]], None]:
    return on("Deployment", lambda web: web["spec"]["template"]["spec"].update(changes))


def container(**changes: Any) -> Callable[[list[dict[str, Any]]], None]:
    def change(web: dict[str, Any]) -> None:
        web["spec"]["template"]["spec"]["containers"][0].update(changes)

    return on("Deployment", change)


def security(drop: str = "", **changes: Any) -> Callable[[list[dict[str, Any]]], None]:
    def change(web: dict[str, Any]) -> None:
        context = web["spec"]["template"]["spec"]["containers"][0]["securityContext"]
        context.update(changes)
        context.pop(drop, None)

    return on("Deployment", change)


def variable(name: str, value: str) -> Callable[[list[dict[str, Any]]], None]:
    return container(env=[{"name": name, "value": value}])


def setting(name: str, value: str) -> Callable[[list[dict[str, Any]]], None]:
    return on("ConfigMap", lambda each: each["data"].update({name: value}))


def policy(**changes: Any) -> Callable[[list[dict[str, Any]]], None]:
    return on("NetworkPolicy", lambda each: each["spec"].update(changes))


def block(cidr: str, *excepted: str, ports: bool = True) -> dict[str, Any]:
    peer = {"to": [{"ipBlock": {"cidr": cidr, "except": list(excepted)}}]}
    return {**peer, "ports": [{"port": 443}]} if ports else peer


def role(**rule: Any) -> Callable[[list[dict[str, Any]]], None]:
    whole = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], **rule}
    return on("Role", lambda each: each.update(rules=[whole]))


def service(kind: str, **spec: Any) -> Callable[[list[dict[str, Any]]], None]:
    def change(each: dict[str, Any]) -> None:
        each["metadata"].pop("annotations")
        each["spec"].update(type=kind, **spec)

    return on("Service", change)


WEB_AT = f"{AT}.containers[web]"
POLICY, NET = "NetworkPolicy shop/all", "spec.egress[0]"

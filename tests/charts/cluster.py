"""A control plane of Kubernetes and a namespace in it, through kubectl and Helm."""

import base64
import json
import os
import subprocess
from pathlib import Path

from tests.charts.rendering import NAMESPACE, helm_program

#: Kinds that Kubernetes makes by itself, of what others make.
BY_ITSELF = {"events", "endpoints", "endpointslices", "controllerrevisions"}


class Cluster:
    """A control plane and a namespace in it."""

    def __init__(self, kubeconfig, chart):
        self.chart = chart
        self.kubeconfig = Path(kubeconfig)
        self._environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        self._kubectl = str(Path(helm_program(3)).with_name("kubectl"))

    def kubectl(self, *arguments, check=True):
        return self._run(self._kubectl, *arguments, check=check)

    def helm(self, *arguments, check=True):
        return self._run(helm_program(3), *arguments, f"--namespace={NAMESPACE}", check=check)

    def of(self, kind, name):
        return json.loads(self.kubectl("get", kind, name, f"-n={NAMESPACE}", "-o=json"))

    def as_account(self, name, folder):
        """A kubeconfig with the token of a service account."""
        (secret,) = self.of("serviceaccount", name)["secrets"]
        token = base64.b64decode(self.of("secret", secret["name"])["data"]["token"]).decode()
        config = json.loads(self.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        path = folder / "kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def objects(self):
        """Whatever is in the namespace, but for what Kubernetes makes by itself."""
        told = self.kubectl("api-resources", "--namespaced", "--verbs=list", "-o=name").split()
        kinds = ",".join(each for each in told if each.partition(".")[0] not in BY_ITSELF)
        listed = json.loads(self.kubectl("get", kinds, f"-n={NAMESPACE}", "-o=json"))["items"]
        return {
            (each["kind"], each["metadata"]["name"])
            for each in listed
            if each["metadata"]["name"] not in ("default", "kube-root-ca.crt")
            and not each["metadata"]["name"].startswith(("default-token", "sh.helm.release"))
            and each.get("type") != "kubernetes.io/service-account-token"
        }

    def admitted(self, pod):
        """A pod as the server would keep it, or why it would not."""
        told = self._run(
            self._kubectl, "create", "--dry-run=server", "--validate=false", "-o=json", "-f=-",
            check=False, told=json.dumps(pod),
        )  # fmt: skip
        try:
            return json.loads(told)
        except ValueError:
            return told

    def _run(self, *command, check, told=None):
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=self._environment, input=told
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout if check else done.stdout + done.stderr

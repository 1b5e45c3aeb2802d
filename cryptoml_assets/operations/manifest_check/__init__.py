"""Security of Kubernetes manifests: findings with rule, object, severity and path; one risk score.

Pure functions over parsed YAML. `manifests` reads, `rules` names what is looked for, one file each
looks for it, and `check` puts all of it together for ``cryptoml manifest-check``.
"""

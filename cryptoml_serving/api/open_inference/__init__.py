"""The Open Inference Protocol, version 2, over HTTP: what KServe and Triton speak.

::

    GET  /v2                                        the server, and its extensions
    GET  /v2/health/live  /v2/health/ready          probes
    GET  /v2/models/M[/versions/V]                  inputs and outputs of a version
    GET  /v2/models/M[/versions/V]/ready            whether it answers
    POST /v2/models/M[/versions/V]/infer            rows in, predictions out

Tensors travel as JSON or by the binary tensor data extension, each way as the caller likes. A path
without a version means the champion. Errors have the protocol's own shape, ``{"error": "..."}``.
"""

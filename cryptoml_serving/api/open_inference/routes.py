"""The protocol's routes: metadata, health, and inference through the batcher."""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING

from fastapi import APIRouter, HTTPException, Request, Response
from starlette.requests import ClientDisconnect

from cryptoml_serving.api import explicit
from cryptoml_serving.api.open_inference import requests, schemas
from cryptoml_serving.api.open_inference.answers import DATATYPE, answer
from cryptoml_serving.api.open_inference.errors import PREFIX
from cryptoml_serving.api.open_inference.rows import TABLE, rows
from cryptoml_serving.api.problems import ProblemError, ProblemType
from cryptoml_serving.api.service import CurrentService, Service
from cryptoml_serving.runtime.errors import ExplicitError

if TYPE_CHECKING:
    from cryptoml_serving.runtime.registry import ApprovedModel

#: How the protocol would name what a bundle holds: a project, and a format.
PLATFORM = "jax_stablehlo"
EXTENSIONS = ("binary_tensor_data",)
router = APIRouter(prefix=PREFIX, tags=["open inference protocol"])


@router.get("", responses=schemas.errors(), summary="Server metadata")
@router.get("/", include_in_schema=False)
async def server() -> schemas.Server:
    """What this server is, and which extensions of the protocol it knows."""
    return schemas.Server(
        name="cryptoml inference", version=installed_version("cryptoml"), extensions=EXTENSIONS
    )


@router.get("/health/live", responses=schemas.errors(), summary="Server live")
async def live() -> schemas.Live:
    """Answers as long as the process lives."""
    return schemas.Live()


@router.get("/health/ready", responses=schemas.errors(503), summary="Server ready")
async def ready(service: CurrentService) -> schemas.Ready:
    """Answers 200 once the approved model is loaded, and until the service is told to stop.

    It predicts rows, features stored or not.
    """
    explicit.chosen_model(service, None, counted=False)
    if service.state.draining:
        raise explicit.not_ready(service, counted=False)
    return schemas.Ready()


@router.get("/models/{name}", responses=schemas.errors(404, 503), summary="Model metadata")
async def model(name: str, service: CurrentService) -> schemas.ModelMetadata:
    """What the champion reads and answers."""
    return _metadata(service, _model(service, name, None))


@router.get(
    "/models/{name}/versions/{version}",
    responses=schemas.errors(404, 503),
    summary="Metadata of a version",
)
async def model_version(name: str, version: str, service: CurrentService) -> schemas.ModelMetadata:
    """What a version reads and answers."""
    return _metadata(service, _model(service, name, version))


@router.get("/models/{name}/ready", responses=schemas.errors(404, 503), summary="Model ready")
async def model_ready(name: str, service: CurrentService) -> schemas.ModelReady:
    """Answers 200 once the champion is loaded."""
    _model(service, name, None, counted=False)
    return schemas.ModelReady(name=name)


@router.get(
    "/models/{name}/versions/{version}/ready",
    responses=schemas.errors(404, 503),
    summary="Version ready",
)
async def version_ready(name: str, version: str, service: CurrentService) -> schemas.ModelReady:
    """Answers 200 while the version is loaded."""
    _model(service, name, version, counted=False)
    return schemas.ModelReady(name=name)


@router.post(
    "/models/{name}/infer",
    response_model=schemas.InferenceAnswer,
    responses=schemas.INFERENCE_ANSWERS,
    openapi_extra=schemas.INFERENCE,
    summary="Infer",
)
async def infer(name: str, request: Request, service: CurrentService) -> Response:
    """Predict rows with the champion; the answer says which version that was."""
    return await _infer(service, request, name, None)


@router.post(
    "/models/{name}/versions/{version}/infer",
    response_model=schemas.InferenceAnswer,
    responses=schemas.INFERENCE_ANSWERS,
    openapi_extra=schemas.INFERENCE,
    summary="Infer with a version",
)
async def infer_version(
    name: str, version: str, request: Request, service: CurrentService
) -> Response:
    """Predict rows with one version, and no other."""
    return await _infer(service, request, name, version)


async def _infer(service: Service, request: Request, name: str, version: str | None) -> Response:
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        # Unpacked, a small body may be of any size.
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"a body is sent as it is, not in the encoding {requests.shown(encoding)}",
            {"Accept-Encoding": "identity"},
        )
    try:
        body = await request.body()
    except ClientDisconnect as error:
        gone = ProblemError(ProblemType.TOO_SLOW, "the caller went away", counted=False)
        raise gone from error
    # Rows are laid out for one model and predicted by the same, whatever is swapped in meanwhile.
    chosen = _model(service, name, version)
    manifest = chosen.bundle.manifest
    header_length = request.headers.get(requests.HEADER_LENGTH)
    features = tuple(feature.name for feature in manifest.features)
    wanted = requests.read(
        body, header_length, produced=manifest.outputs, most_inputs=len(features)
    )
    given = rows(wanted.inputs, features, service.settings.serving_max_rows)
    try:
        batch = await service.batcher.predict(given, deadline=request.state.deadline, model=chosen)
    except ExplicitError as error:
        raise explicit.refused(service, error) from error
    return answer(wanted, batch)


def _model(
    service: Service, name: str, version: str | None, *, counted: bool = True
) -> ApprovedModel:
    """The model a path names.

    Raises:
        ProblemError: it is not served, or not yet.
    """
    served = service.settings.model_name
    if name != served:
        raise ProblemError(
            ProblemType.UNKNOWN_MODEL,
            f"model {requests.shown(name)} is not served; served: {served}",
            counted=counted,
        )
    return explicit.chosen_model(service, version, counted=counted)


def _metadata(service: Service, model: ApprovedModel) -> schemas.ModelMetadata:
    manifest = model.bundle.manifest
    columns = len(manifest.features)
    return schemas.ModelMetadata(
        name=manifest.model_name,
        versions=tuple(sorted(service.state.models, key=lambda each: (len(each), each))),
        platform=PLATFORM,
        inputs=(schemas.TensorMetadata(name=TABLE, datatype="FP32", shape=(-1, columns)),),
        outputs=tuple(
            schemas.TensorMetadata(name=output, datatype=DATATYPE, shape=(-1,))
            for output in manifest.outputs
        ),
        parameters={
            "version": model.placement.model_version,
            "features": ",".join(feature.name for feature in manifest.features),
            "horizon_seconds": manifest.horizon_seconds,
            "source": manifest.source,
            "bundle_digest": model.bundle.digest,
        },
    )

"""``GET /docs``: the interface to try in a browser, with no internet.

The files are Swagger UI's own, as the package ``fastapi-swagger`` carries them.
"""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from importlib import resources

from fastapi import APIRouter, HTTPException, Response

_PACKAGE = "fastapi_swagger.resources"
#: Files of that package, and what a browser is told they are.
_FILES = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
#: Scripts from here alone. Swagger UI sets styles as it goes, and draws its icons from data.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>cryptoml inference: interface</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
</head>
<body>
<div id="interface"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#interface",
  deepLinking: true,
  // Without this it asks a server on the internet whether the document is valid.
  validatorUrl: null,
});
"""
router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def docs() -> Response:
    """The page."""
    headers = {"Content-Security-Policy": POLICY}
    return Response(_PAGE, media_type="text/html; charset=utf-8", headers=headers)


@router.get("/docs/{file}")
async def asset(file: str) -> Response:
    """One of its files."""
    if file == "start.js":
        return Response(_START, media_type="text/javascript; charset=utf-8")
    if file not in _FILES:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return Response(
        _content(file), media_type=_FILES[file], headers={"Cache-Control": "private, max-age=3600"}
    )


@cache
def _content(file: str) -> bytes:
    return resources.files(_PACKAGE).joinpath(file).read_bytes()

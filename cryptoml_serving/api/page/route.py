"""The route of the page: rendered on the server, complete in one answer, with no other file."""

from __future__ import annotations

import base64
import hashlib
import time
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from cryptoml_serving.api.page import charts, figures
from cryptoml_serving.api.page.view import view
from cryptoml_serving.api.service import CurrentService
from cryptoml_serving.api.stream import EVENT, CurrentChronicle

if TYPE_CHECKING:
    from cryptoml_serving.runtime.lake_view import Picture
    from cryptoml_serving.runtime.snapshot import Snapshot

#: Longest that one drawing of the page is given to more than one caller.
_MOMENT_SECONDS = 1.0
router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class _Drawn:
    """The page as it was, and what of."""

    at: float
    snapshot: Snapshot | None
    picture: Picture
    html: str

    def stands(self, snapshot: Snapshot | None, picture: Picture) -> bool:
        """Whether nothing but a moment of its ages has changed since."""
        unchanged = self.snapshot is snapshot and self.picture is picture
        return unchanged and time.monotonic() - self.at < _MOMENT_SECONDS


@router.get("/")
async def page(
    request: Request, service: CurrentService, chronicle: CurrentChronicle
) -> HTMLResponse:
    """Live predictions with their intervals and ages, the model, its approval, history, drift."""
    snapshot, picture = service.state.snapshot, chronicle.lake.picture
    drawn: _Drawn | None = getattr(request.app.state, "drawn", None)
    if drawn is None or not drawn.stands(snapshot, picture):
        # Milliseconds in which nothing else is answered: once for all who look at the same moment.
        html = _template().render(view=view(service, picture))
        drawn = request.app.state.drawn = _Drawn(time.monotonic(), snapshot, picture, html)
    return HTMLResponse(drawn.html, headers={"Content-Security-Policy": policy()})


@cache
def policy() -> str:
    """What a browser may do with the page: run its one script, and ask this service.

    The digests are those of the inline script and style, which are the same in every answer.
    """
    script, style = (_digest(_text(name)) for name in ("page.js", "page.css"))
    return (
        f"default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "f": figures,
        "charts": charts,
        "event": EVENT,
        # Of this package, and of nobody else's making.
        "style": Markup(_text("page.css")),  # noqa: S704
        "script": Markup(_text("page.js")),  # noqa: S704
    }
    return environment.get_template("page.html")


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"

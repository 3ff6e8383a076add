"""The files of the reference: Swagger UI as its project released it, and the few lines that start it."""

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType

from starlette.responses import Response

FOLDER = files(__name__.rpartition(".")[0]) / "files"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The content security policy of the reference: everything comes from this service, and no script is inline."""


class Page(Response):
    """An HTML page."""

    media_type = "text/html"


class Script(Response):
    """A script."""

    media_type = "text/javascript"


class Style(Response):
    """A style sheet."""

    media_type = "text/css"


class Icon(Response):
    """An icon."""

    media_type = "image/png"


class Text(Response):
    """A text, such as a license."""

    media_type = "text/plain"


REFERENCE: Mapping[str, tuple[type[Response], str]] = MappingProxyType(
    {
        "docs.js": (Script, "docs.js"),
        "docs.css": (Style, "docs.css"),
        "swagger-ui-bundle.js": (Script, "swagger-ui/swagger-ui-bundle.js"),
        "swagger-ui-bundle.js.LICENSE.txt": (Text, "swagger-ui/swagger-ui-bundle.js.LICENSE.txt"),
        "swagger-ui.css": (Style, "swagger-ui/swagger-ui.css"),
        "favicon-32x32.png": (Icon, "swagger-ui/favicon-32x32.png"),
        "LICENSE": (Text, "swagger-ui/LICENSE"),
        "NOTICE": (Text, "swagger-ui/NOTICE"),
    }
)
"""The names under `/docs/`, each with its kind of response and its file."""


@lru_cache
def read(name: str) -> bytes:
    """Return the bytes of a file of the package, by its path in the folder `files`."""
    return FOLDER.joinpath(name).read_bytes()

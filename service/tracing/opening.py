"""Open the tracing of an application. Without it, nothing of OpenTelemetry is imported."""

import importlib
from typing import TYPE_CHECKING, Any

from latchkey.service.settings import Settings, SettingsError

if TYPE_CHECKING:
    from latchkey.service.tracing.spans import Tracing


def open_tracing(settings: Settings) -> "Tracing | None":
    """Return the tracing of an application; None if it is off.

    Raises:
        SettingsError: the extra `opentelemetry` is not installed.
    """
    if settings.traces == "off":
        return None
    try:
        spans: Any = importlib.import_module("latchkey.service.tracing.spans")
    except ModuleNotFoundError:
        raise SettingsError(
            "LATCHKEY_TRACES needs the extra `opentelemetry`: pip install 'latchkey[opentelemetry]'."
        ) from None
    tracing: Tracing = spans.Tracing(spans.open_provider())
    return tracing

"""The formats of the secrets of imported keys, from the settings."""

from latchkey.service.authentication.wire.imported_secrets import SecretFormat, read_formats
from latchkey.service.settings import Settings, SettingsError


def read_imported_formats(settings: Settings) -> tuple[SecretFormat, ...]:
    """Return the formats of the secrets that other systems made; without the setting there are none.

    Raises:
        SettingsError: a format has a wrong form.
    """
    if settings.imported_secrets is None:
        return ()
    try:
        return read_formats(settings.imported_secrets)
    except ValueError as error:
        raise SettingsError(f"LATCHKEY_IMPORTED_SECRETS: {error}.") from None

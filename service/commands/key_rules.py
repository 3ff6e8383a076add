"""The rules for keys in the commands."""

from latchkey.service.authentication.imported_formats import read_imported_formats
from latchkey.service.authentication.keyring import open_keyring
from latchkey.service.commands.application import read_scopes
from latchkey.service.keys.issuing import Issuer
from latchkey.service.keys.rules import KeyRules
from latchkey.service.settings import Settings, read_environments


def key_rules(settings: Settings) -> KeyRules:
    """Return the rules of the application; the command line may create any number of keys."""
    issuer = Issuer(
        settings.key_prefix,
        open_keyring(settings),
        read_environments(settings.environments),
        read_imported_formats(settings),
    )
    return KeyRules(issuer, read_scopes(), keys_per_owner=None)

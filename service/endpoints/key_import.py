"""The import of keys: `/v1/keys/import`."""

from starlette.requests import Request

from latchkey.service.endpoints.caller import hold_caller
from latchkey.service.keys.import_shapes import ImportResults, KeyImport
from latchkey.service.keys.importing import Importer
from latchkey.service.parts import parts_of


async def import_keys(request: Request, body: KeyImport) -> ImportResults:
    """Import keys of another system with their secrets, so that their holders need not change anything.

    A bearer key is imported by its secret or by the SHA-256 of it; `LATCHKEY_IMPORTED_SECRETS` lists the formats of its
    secrets. A key that signs gets a new access key and keeps its secret. Each key is imported or refused on its own. A key whose
    secret is known already is left unchanged, so the call can be repeated. The calling key needs every scope that it gives.
    """
    caller = await hold_caller(request)
    results = await Importer(parts_of(request.app).key_rules).run(body.data, caller)
    return ImportResults(data=results)

"""The public API for a team's own tests: the types of the fixture `latchkey`.

The pytest plugin `pytest_latchkey` is installed with Latchkey; `docs/your-own-package.md` shows how to use it.
"""

from latchkey.service.testing.clients import Client, PartnerClient
from latchkey.service.testing.contents import NotEmptyError
from latchkey.service.testing.moved_clock import Clock
from latchkey.service.testing.running_app import RunningApp

__all__ = ["Client", "Clock", "NotEmptyError", "PartnerClient", "RunningApp"]

"""`python -m service` is `latchkey`."""

from service.commands import main

main()

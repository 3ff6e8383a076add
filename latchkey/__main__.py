"""`python -m latchkey` is the command `latchkey`."""

from latchkey.service.commands import main

main()

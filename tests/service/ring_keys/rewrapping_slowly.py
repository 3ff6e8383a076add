"""`latchkey keyring rewrap`, which waits after its first batch."""

from latchkey.service.commands import main
from latchkey.service.ring_keys import rewrapping

if __name__ == "__main__":
    rewrapping.PAUSE_S = 60.0
    main()

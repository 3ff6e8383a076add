"""The command `orders …` or `python -m orders …`: Latchkey's commands for this application, and its own."""

from latchkey import command_line
from orders.commands import import_

main = command_line("orders.app:create_app", name="orders", commands=[import_])

if __name__ == "__main__":
    main()

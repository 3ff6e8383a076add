"""The command `newsroom …` or `python -m newsroom …`: Latchkey's commands for this application, and its own."""

from latchkey import command_line
from newsroom.commands import import_

main = command_line("newsroom.app:create_app", name="newsroom", commands=[import_])

if __name__ == "__main__":
    main()

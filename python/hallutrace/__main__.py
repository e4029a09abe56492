"""``python -m hallutrace``: the command line."""

from hallutrace.commands.app import main

if __name__ == "__main__":
    main()

"""``python -m hallutrace``: the command line."""

from hallutrace.cli import main

if __name__ == "__main__":
    main()

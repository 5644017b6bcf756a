"""``python -m danseg``: the command ``danseg`` where a module is asked for, as torchrun does."""

from danseg.command import main

if __name__ == "__main__":
    main()

"""``python -m danseg``: the command ``danseg``, where no script of this name is at hand, as under torchrun."""

from danseg.command import main

if __name__ == "__main__":
    main()

"""`python -m flowprep` is `flowprep`."""

from flowprep.cli import main

if __name__ == "__main__":
    main()

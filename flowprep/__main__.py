"""`python -m flowprep` is the same command as `flowprep`."""

from flowprep.cli import main

if __name__ == "__main__":
    main()

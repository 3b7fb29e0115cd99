"""`python -m remask`: the same as `remask`."""

from remask.cli import main

if __name__ == "__main__":
    main()

"""`python -m sotol`: the same as the command `sotol`."""

from sotol.cli import main

if __name__ == "__main__":
    main()

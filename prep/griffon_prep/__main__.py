"""`python -m griffon_prep`, the same as `griffon-prep`."""

from griffon_prep.cli import main

if __name__ == "__main__":
    main()

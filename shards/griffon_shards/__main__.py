"""`python -m griffon_shards`, the same as `griffon-shards`."""

from griffon_shards.cli import main

if __name__ == "__main__":
    main()

"""`python -m griffon_train` is `griffon-train`."""

from griffon_train.cli.main import main

main(prog_name="griffon-train")

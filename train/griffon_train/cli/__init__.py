"""The command line `griffon-train`."""

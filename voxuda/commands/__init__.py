"""The command line, one file a family of commands; each is a thin layer over the package's functions."""

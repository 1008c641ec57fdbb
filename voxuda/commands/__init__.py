"""The command line, one file per family of commands; nothing is computed here."""

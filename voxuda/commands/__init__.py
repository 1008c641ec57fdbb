"""The command line, one file a family of commands; nothing is computed here."""

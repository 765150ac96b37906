"""The command line: everything that talks to a person or a script."""

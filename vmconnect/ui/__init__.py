"""Windows and terminals that show a console."""

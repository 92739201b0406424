"""Direct: commands and files inside guests."""

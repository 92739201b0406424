"""Sessions: one machine, live."""

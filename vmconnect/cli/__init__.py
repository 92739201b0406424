"""The vmconnect command."""

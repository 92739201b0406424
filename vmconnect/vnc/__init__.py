"""The RFB engine and the console."""

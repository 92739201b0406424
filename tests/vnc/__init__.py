"""Tests of the RFB engine and the console."""

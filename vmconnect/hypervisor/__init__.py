"""Hypervisors: find machines, power them, reach their endpoints."""

"""The demo machine: a real guest from the distribution's packages."""

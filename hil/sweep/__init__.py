"""Sweeps: many points, each a pure function of its own description, on any executor."""

"""Cameras that look at simulated rigs."""

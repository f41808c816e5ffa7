"""Multibody systems, one file each."""

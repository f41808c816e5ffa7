"""Limits, lease and deadman: the only way to a rig."""

"""Rigs: the contracts, one file per rig, and a rig owned by another process."""

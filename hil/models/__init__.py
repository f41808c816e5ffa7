"""Dynamics as a plug: equations or learned, one file each, on one small contract."""

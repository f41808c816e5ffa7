"""Estimators and controllers, one file each, on two small contracts."""

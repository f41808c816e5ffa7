"""Plants, and rigs in process."""

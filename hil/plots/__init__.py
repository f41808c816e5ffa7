"""Pictures of a run: arrays in, a PNG out; no display and no global state."""

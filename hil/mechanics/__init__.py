"""The equations, pure: arrays in, arrays out; no device, no clock, no file but a geometry."""

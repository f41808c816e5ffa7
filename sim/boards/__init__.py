"""Boards on this machine: the real firmware with a simulated plant on its bus."""

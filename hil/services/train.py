"""In-situ training as a process: rig, task and trainer put together, and what it leaves."""

from __future__ import annotations

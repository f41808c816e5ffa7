"""Hardware-in-the-loop emulation and control: one process owns a rig, the rest talk to it."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("hil")
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"

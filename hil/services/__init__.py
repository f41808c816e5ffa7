"""One thin file per process, and what the verbs of the command line do."""

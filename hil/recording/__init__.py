"""What a run leaves behind: its directory, and recordings that survive a kill."""

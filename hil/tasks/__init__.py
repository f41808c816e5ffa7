"""What is to be learned or done: one file each, knowing no device."""

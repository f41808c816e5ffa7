"""Serving models: batches, deadlines, a process that computes, and clients."""

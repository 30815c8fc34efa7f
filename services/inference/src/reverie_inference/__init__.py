"""Diffusers worker: the step engine behind the queue."""

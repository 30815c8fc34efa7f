"""Reverie's built-in model: the procedural data set, its training and its measurement."""

"""The reverie command: start everything, generate, look, cancel."""

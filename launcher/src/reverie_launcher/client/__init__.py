"""A client of the public HTTP and WebSocket API; it knows nothing of terminals."""

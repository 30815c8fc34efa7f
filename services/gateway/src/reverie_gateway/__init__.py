"""HTTP and WebSocket edge of Reverie."""

"""One ComfyUI server: its connections, its health, and what is known of it."""

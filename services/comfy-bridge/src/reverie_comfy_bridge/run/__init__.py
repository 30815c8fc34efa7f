"""One prompt inside ComfyUI: what comes in, and what it means; pure."""

"""ComfyUI servers as backends of Reverie: jobs go in, progress, previews and outputs come out."""

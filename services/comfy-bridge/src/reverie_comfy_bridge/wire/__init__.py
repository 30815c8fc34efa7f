"""What ComfyUI sends, as typed values, in every version; pure."""

"""GPUs as the NVIDIA driver tells them."""

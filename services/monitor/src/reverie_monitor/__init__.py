"""What the nodes, GPUs, workers and the store are doing, and when an operator should know."""

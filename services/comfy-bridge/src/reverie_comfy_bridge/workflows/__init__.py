"""Named workflows: their parameters, their graphs, and whether an instance can run them."""

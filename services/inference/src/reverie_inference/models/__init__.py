"""Loading models: which files are safe, what they hold, and how they become a pipeline."""

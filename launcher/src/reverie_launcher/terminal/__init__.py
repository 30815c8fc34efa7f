"""What a person sees: progress, pictures, tables."""

"""Families of models that the step engine runs itself, one file each."""

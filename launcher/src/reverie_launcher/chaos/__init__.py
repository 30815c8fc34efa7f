"""`reverie chaos`: real processes, a schedule of faults from a seed, and an oracle that says what was lost."""

"""How a session walks from candidate to candidate: one small file each."""

"""Dream sessions: live, steerable, scored exploration in the background."""

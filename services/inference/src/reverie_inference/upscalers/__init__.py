"""Super-resolution networks: what their files hold, and how they enlarge."""

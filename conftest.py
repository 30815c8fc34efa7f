"""How property tests run in every part of the workspace: without a clock, for a busy machine is no failure."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# What a test gives itself in `@settings` goes before; what the environment chose (CI) stays as it is beside this.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

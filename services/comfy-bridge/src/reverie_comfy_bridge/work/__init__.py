"""Jobs of the platform on instances: who gets which, one attempt of one job, its inputs and outputs."""

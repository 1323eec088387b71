"""Makes trajectories."""

"""Real trajectories."""

"""Simulation as a service: RL agents train in worlds learned from real trajectories, served over gRPC."""

__version__ = "0.1.0"

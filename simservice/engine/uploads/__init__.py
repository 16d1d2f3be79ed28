"""Policies that users upload: inspected in a process of their own, kept as graph and weights, run under watch."""

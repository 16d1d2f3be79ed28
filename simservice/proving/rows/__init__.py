"""Rows of the acceptance table that every family must pass, whatever it learned: each takes a world and its ground."""

"""Learned dynamics behind one pure interface."""

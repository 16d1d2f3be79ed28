"""Who holds which lanes, and how they survive."""

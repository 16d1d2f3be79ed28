"""From episodes to a world's weights."""

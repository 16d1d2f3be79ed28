"""How far a dream is from the real thing: metrics in numpy and scipy."""

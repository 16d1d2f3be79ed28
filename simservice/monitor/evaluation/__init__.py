"""The whole truth about one world on demand: its own play in reality and dream, eight numbers, and a verdict."""

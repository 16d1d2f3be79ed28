"""Proves worlds: record, train, serve, train an agent inside, score it in reality, beside controls."""

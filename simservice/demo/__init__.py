"""The whole way, once, on real input: collect, train, serve, learn in the dream, score in reality, report."""

"""Those the service is measured beside, one a file. A peer is a context manager `peer(lanes, frames)` that yields a
contestant, or raises ImportError where its library is not installed."""

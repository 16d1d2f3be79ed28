"""Many lanes on one device, stepped in batches."""

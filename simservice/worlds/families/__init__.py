"""One file a family; found by entry point, named by nobody."""

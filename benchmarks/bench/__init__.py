"""The service beside its peers and its ceilings, all in one run: `python -m bench`, from the folder above."""

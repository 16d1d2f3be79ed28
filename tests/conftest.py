"""Its place puts this folder on the import path: tests of all rooms use toy.py and counter_lanes.py."""

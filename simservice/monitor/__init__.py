"""The process that measures served worlds against reality."""

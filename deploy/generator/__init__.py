"""Writes deploy/prometheus and deploy/grafana from the names and bars that the code itself uses."""

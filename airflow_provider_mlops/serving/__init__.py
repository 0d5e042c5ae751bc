"""Servers for models: one version by MLflow's own app, and a router in front of several versions on one machine."""

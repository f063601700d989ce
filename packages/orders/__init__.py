"""Example package: orders, with jobs of every kind. Stock Python only."""

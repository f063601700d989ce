"""Example package: reports that wait for jobs of the package orders."""

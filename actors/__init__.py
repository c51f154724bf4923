"""Plain classes that run as actors; only cluster/launch.py makes them remote."""

"""Seeded, comparative measurements; RESULTS.md holds their figures. Run with `make bench`."""

"""Reads, quantizes, publishes: an emulated wearable."""

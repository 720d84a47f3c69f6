"""The live page: what a gateway sees, in a browser."""

"""Recognition networks, one a file."""

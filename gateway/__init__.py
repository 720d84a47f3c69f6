"""Receives, predicts, explains."""

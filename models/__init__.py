"""Learns and exports: data sets, networks, joint training, bundles."""

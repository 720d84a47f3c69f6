"""Wearables over Bluetooth Low Energy: emulated ones on a virtual radio, real ones, and the bridge to MQTT."""

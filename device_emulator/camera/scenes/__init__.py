"""Generated scenes for a camera node: what light falls on its sensor, and where the figures are."""

from device_emulator.camera.scenes.walkabout import CLASSES, Box, Scene, Walkabout, still

__all__ = ["CLASSES", "Box", "Scene", "Walkabout", "still"]

"""Camera nodes: RAW frames from files or a generated scene, quantized, coded, cut into chunks."""

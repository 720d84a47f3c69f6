"""Detection in RAW frames: pictures, their way back to RAW, the detector, its training and its scores."""

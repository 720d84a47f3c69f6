"""Numbers: counts to codes to bytes. numpy alone, except :mod:`quantization.gamma`."""

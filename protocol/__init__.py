"""What travels: everything that a device and a gateway must agree on."""

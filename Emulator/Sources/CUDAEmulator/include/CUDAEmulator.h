// The library has no header: it is loaded by name, as the driver is.

"""The package's version; the major and minor numbers are those of the C library it is built with."""

__version__ = "0.1.0"

#: major * 10000 + minor * 100 + patch, as `fi_version()` gives it.
ABI_VERSION = 100

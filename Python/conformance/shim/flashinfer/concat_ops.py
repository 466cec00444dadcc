"""The peer's module of that name."""

from flashinfer_swift import concat_mla_k as concat_mla_k

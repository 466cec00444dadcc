// A server needs one import: the engine's options and errors are made of the library's values.
@_exported public import FlashInfer

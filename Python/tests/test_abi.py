"""The ctypes mirror against the header's text, and the package's promises about imports."""

import ctypes
import os
import pathlib
import re
import subprocess
import sys
import unittest

import support  # noqa: F401  (puts the package on the path)

from flashinfer_swift import _abi, _library, version

HEADER = pathlib.Path(__file__).parents[2] / "Sources/CFlashInfer/include/flashinfer_swift.h"
TYPES = {
    "uint64_t": ctypes.c_uint64, "int64_t": ctypes.c_int64, "int32_t": ctypes.c_int32, "uint32_t": ctypes.c_uint32,
    "float": ctypes.c_float, "fi_data_type": _abi.DType,
}


@unittest.skipUnless(HEADER.exists(), f"{HEADER} is not here (the tests run without the repository)")
class HeaderTests(unittest.TestCase):
    def setUp(self):
        parts = sorted(HEADER.with_suffix("").glob("*.h"))
        self.text = re.sub(r"/\*.*?\*/", "", "".join(part.read_text() for part in parts), flags=re.S)

    def test_structs(self):
        for name, mirror in _abi.STRUCTS.items():
            body = re.search(rf"typedef struct {name} {{(.*?)}} {name};", self.text, re.S).group(1)
            fields = []
            for line in body.split(";"):
                declaration = line.replace("const ", "").strip()
                if declaration:
                    kind, field = re.fullmatch(r"(\w+(?: \*)?)\s*(\w+)", declaration).groups()
                    fields.append((field, kind))
            self.assertEqual([field for field, _ in fields], [field for field, _ in mirror._fields_], name)
            for (field, kind), (_, mirrored) in zip(fields, mirror._fields_):
                if kind.endswith("*"):
                    self.assertEqual(ctypes.sizeof(mirrored), ctypes.sizeof(ctypes.c_void_p), (name, field))
                else:
                    self.assertIs(mirrored, TYPES[kind], (name, field))

    def test_functions(self):
        declared = {}
        for match in re.finditer(r"^[\w ]+?[ *](fi_\w+)\(\s*([^;]*?)\);", self.text, re.M | re.S):
            arguments = match.group(2).strip()
            declared[match.group(1)] = [] if arguments == "void" else [part.strip() for part in arguments.split(",")]
        mirrored = {**_abi.FUNCTIONS, **{name: arguments for name, (_, arguments) in _abi.OTHER_FUNCTIONS.items()}}
        self.assertEqual(set(mirrored) - set(declared), set())
        missing = set(declared) - set(mirrored)
        self.assertEqual(missing, set(), "the header has functions that the package does not know")
        for name, arguments in mirrored.items():
            self.assertEqual(len(arguments), len(declared[name]), name)
            for mirror, text in zip(arguments, declared[name]):
                kind = text.replace("const ", "").split()[0]
                if "*" in text:
                    self.assertEqual(ctypes.sizeof(mirror), 8, (name, text))
                else:
                    self.assertEqual(mirror, ctypes.c_int32 if kind == "fi_status" else TYPES[kind], (name, text))

    def test_constants(self):
        for name in (
            "OK", "INVALID_ARGUMENT", "UNSUPPORTED", "PLAN_MISMATCH", "OUT_OF_MEMORY", "DEVICE_FAILURE", "ABI_MISMATCH", "NHD",
            "HND", "ROPE_LINEAR", "ROPE_LLAMA3", "MASK_CAUSAL", "MASK_CUSTOM", "MASK_CUSTOM_PACKED", "POSITION_ROPE",
            "POSITION_ALIBI", "SPLIT_FIXED", "SPLIT_NONE", "TOP_K_FIRST", "JOINT", "LOGITS", "PROBABILITIES",
            "RANK_MISMATCH", "RANK_FAILURE", "SHARE_CHUNKS", "SHARE_INTERLEAVED", "SHARE_ZIGZAG", "TRANSPORT_AUTOMATIC", "TRANSPORT_HOST",
        ):
            found = re.search(rf"\bFI_{name} = (\d+)", self.text)
            self.assertIsNotNone(found, name)
            self.assertEqual(int(found.group(1)), getattr(_abi, name), name)
        for name in ("SILU", "GELU", "GELU_TANH"):
            found = re.search(rf"\bFI_ACTIVATION_{name} = (\d+)", self.text)
            self.assertEqual(int(found.group(1)), getattr(_abi, name), name)
        numbers = [int(re.search(rf"FI_VERSION_{part} (\d+)", self.text).group(1)) for part in ("MAJOR", "MINOR", "PATCH")]
        self.assertEqual(numbers[0] * 10_000 + numbers[1] * 100 + numbers[2], version.ABI_VERSION)
        self.assertEqual(".".join(map(str, numbers)), version.__version__)


class LibraryTests(unittest.TestCase):
    def test_every_function_is_there(self):
        library = _library.get()
        for name in (*_abi.FUNCTIONS, *_abi.OTHER_FUNCTIONS):
            self.assertTrue(hasattr(library.handle, name), name)

    def test_import_needs_nothing(self):
        code = (
            "import sys; import flashinfer_swift as f; "
            "assert not {'torch', 'numpy', 'cupy', 'ml_dtypes'} & set(sys.modules), 'an array library was imported'; "
            "o = f.BatchPrefillWithPagedKVCacheWrapper")
        environment = dict(os.environ, PYTHONPATH=str(pathlib.Path(_library.__file__).parents[1]))
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)

    def test_missing_library_says_where_it_was_looked_for(self):
        code = (
            "import array, flashinfer_swift as f\n"
            "try: f.info.library_version()\n"
            "except f.LibraryNotFoundError as e: assert '/nowhere/lib.so' in str(e), e\n"
            "else: raise SystemExit('no error')")
        environment = dict(
            os.environ, PYTHONPATH=str(pathlib.Path(_library.__file__).parents[1]), FLASHINFER_SWIFT_LIBRARY="/nowhere/lib.so")
        subprocess.run([sys.executable, "-c", f"import flashinfer_swift.info\n{code}"], check=True, env=environment)


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""Logits of a GGUF file by llama.cpp in f32 beside those of `import_gpt2 --model FILE.gguf --out LOGITS`.

    cargo run --release --example import_gpt2 -- --model FILE.gguf --ids 504,3575,282 --out logits.safetensors
    python scripts/compare_llama_cpp.py FILE.gguf logits.safetensors 504,3575,282

The file is written again with its codes as the floats that they stand for: beside codes llama.cpp rounds activations
to 8 bits. Keys and values are kept in f32, and attention is not fused, which would round them to f16.

llama.cpp comes from the library of the package `xllamacpp` (tried: 2026.10.11549, which is build 11549), by its C
functions; `gguf`, `numpy` and `safetensors` are needed as well. The structures of parameters, which change from
version to version, are taken as bytes with room to spare: the ABI of x86-64 and 64-bit ARM Linux passes them in memory.
"""

import ctypes
import importlib.util
import sys
import tempfile
from pathlib import Path

import gguf
import numpy
from safetensors.numpy import load_file


class Bytes(ctypes.Structure):
    _fields_ = [("words", ctypes.c_int32 * 512)]


class Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)), ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)), ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))), ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


def in_floats(source, target):
    """Writes a file with every tensor in f32."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, arch=reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        items = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), kind, sub_type=items)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, numpy.array(values, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def in_f32(parameters):
    """The parameters of a context without fused attention, keys and values in f32."""
    words = list(parameters.words)
    # Kinds of scaling, pooling, attention and fused attention, all left open.
    choices = next(i for i in range(32) if words[i : i + 4] == [-1] * 4)
    # Two pointers that are null, then the types of keys and values, which are f16.
    types = next(i for i in range(choices, 64) if words[i : i + 6] == [0, 0, 0, 0, 1, 1]) + 4
    parameters.words[choices + 3] = 0
    parameters.words[types] = parameters.words[types + 1] = 0
    return parameters


class Model:
    """A file, opened by llama.cpp; with `exact`, keys and values in f32 and attention that is not fused."""

    def __init__(self, path, exact):
        package = Path(importlib.util.find_spec("xllamacpp").submodule_search_locations[0])
        self.library = library = ctypes.CDLL(str(next(package.glob("xllamacpp*.so"))))
        for name in ("llama_model_default_params", "llama_context_default_params"):
            getattr(library, name).restype = Bytes
        for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_model_get_vocab"):
            getattr(library, name).restype = ctypes.c_void_p
        library.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
        library.llama_backend_init()
        parameters = library.llama_model_default_params()
        self.model = ctypes.c_void_p(library.llama_model_load_from_file(str(path).encode(), parameters))
        if not self.model:
            sys.exit(f"llama.cpp does not load {path}")
        parameters = library.llama_context_default_params()
        self.context = ctypes.c_void_p(library.llama_init_from_model(self.model, in_f32(parameters) if exact else parameters))
        self.vocabulary = ctypes.c_void_p(library.llama_model_get_vocab(self.model))
        self.tokens = library.llama_vocab_n_tokens(self.vocabulary)

    def logits(self, ids, first=0):
        """Logits behind each of some tokens from a position on, `[tokens, vocabulary]`."""
        count, sequence = len(ids), ctypes.c_int32(0)
        numbers = ctypes.c_int32 * count
        batch = Batch(
            count, numbers(*ids), None, numbers(*range(first, first + count)), numbers(*[1] * count),
            (ctypes.POINTER(ctypes.c_int32) * count)(*[ctypes.pointer(sequence)] * count), (ctypes.c_int8 * count)(*[1] * count),
        )
        if self.library.llama_decode(self.context, batch) != 0:
            sys.exit("llama.cpp failed")
        rows = [self.library.llama_get_logits_ith(self.context, i) for i in range(count)]
        return numpy.stack([numpy.ctypeslib.as_array(row, shape=(self.tokens,)).copy() for row in rows])


def llama_cpp(path, ids):
    """Logits in f32 behind each of some tokens."""
    return Model(path, exact=True).logits(ids)


def main():
    source, logits, ids = sys.argv[1], sys.argv[2], [int(token) for token in sys.argv[3].split(",")]
    (ours,) = load_file(logits).values()
    with tempfile.TemporaryDirectory() as folder:
        floats = Path(folder) / "floats.gguf"
        in_floats(source, floats)
        theirs = llama_cpp(floats, ids)
    difference = numpy.abs(ours.reshape(theirs.shape) - theirs).max()
    print(f"{len(ids)} tokens, logits up to {numpy.abs(theirs).max():.2f}: largest difference {difference:.2e}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Compare Swift tokenizer ids with those of Hugging Face `tokenizers`, and make the golden files of the tests.

    pip install tokenizers            # both commands; `gguf` too for a .gguf file; `sentencepiece` for `fixtures`
    Scripts/check-tokenizer.py compare MODEL.gguf [--fuzz 20000]
    Scripts/check-tokenizer.py compare tokenizer.json
    Scripts/check-tokenizer.py fixtures   # retrains the small tokenizers in Tests/.../Fixtures and their golden ids

`compare` writes cases to a temporary folder and runs the test `idsAreThoseOfTheCases` on them
(`swift test -c release`), which fails with the first ten differences.

Text is drawn from Scripts/../Tests/FlashInferEngineTests/Fixtures/corpus.txt and from a seeded random generator.
"""
import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unicodedata

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "Tests/FlashInferEngineTests/Fixtures"

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def assigned(scalar):
    """Whether this Python's Unicode data know the scalar, so that newer and older tables cannot disagree on it."""
    return 0xD800 > scalar or scalar > 0xDFFF and unicodedata.category(chr(scalar)) != "Cn"


def random_text(rng, specials):
    pools = [
        lambda: chr(rng.randrange(0x20, 0x7F)),
        lambda: rng.choice(" \t\n\r\u00a0\u3000\u2028\u0085\u200b "),
        lambda: rng.choice(" " * 4 + "\n"),
        lambda: rng.choice("'sS'tT'reVE'll'D'\u017f'"),
        lambda: rng.choice("0123456789\u0663\u00bd\u2167"),
        lambda: rng.choice("\u0301\u0300\u200d\ufe0f\U0001f468\U0001f469\U0001f467\U0001f3fd\U0001f1eb"),
        lambda: chr(rng.randrange(0xA0, 0x250)),
        lambda: chr(rng.randrange(0x370, 0x700)),
        lambda: chr(rng.randrange(0x900, 0xE80)),
        lambda: chr(rng.randrange(0x3040, 0xA000)),
        lambda: chr(rng.randrange(0x1F300, 0x1FAF0)),
        lambda: chr(rng.randrange(0x110000)),
        lambda: rng.choice(specials) if specials else "<|x|>",
        lambda: rng.choice(["the", " the", "ing", "Hello", " world", "return", "def ", "HTTPServer", "  ", "\n\n"]),
    ]
    chosen = [rng.choice(pools) for _ in range(rng.randrange(1, 5))]
    text = "".join(rng.choice(chosen)() for _ in range(rng.randrange(1, 40)))
    return "".join(c for c in text if assigned(ord(c)) and ord(c) != 0)


def texts(fuzz, seed, specials):
    corpus = (FIXTURES / "corpus.txt").read_bytes().decode("utf-8")
    lines = corpus.split("\n")
    result = lines + [corpus] + ["\n".join(lines[i : i + 7]) for i in range(0, len(lines), 7)]
    result += ["", " ", "\n", "a", "\r\n\r\n  x", " " * 100 + "y", "\t" * 33, "a" * 1000, "ab " * 300, "!?" * 200]
    rng = random.Random(seed)
    return result + [random_text(rng, specials) for _ in range(fuzz)]


def golden_texts(seed, specials=()):
    """A few of them, for files that are committed."""
    rng = random.Random(seed)
    lines = (FIXTURES / "corpus.txt").read_bytes().decode("utf-8").split("\n")
    groups = ["\n".join(lines[i : i + 3]) for i in range(0, len(lines), 3)]
    fuzz = [random_text(rng, list(specials)) for _ in range(40)]
    return rng.sample(lines, 60) + rng.sample(groups, 8) + texts(0, 0, [])[-10:-4] + fuzz


def golden_cases(tokenizer, seed):
    specials = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
    for index, text in enumerate(golden_texts(seed, specials)):
        marks, special = index % 8 == 0, index % 5 != 0
        tokenizer.encode_special_tokens = not special
        yield {"text": text, "ids": tokenizer.encode(text, add_special_tokens=marks).ids, "marks": marks,
               "special": special}


def cases(tokenizer, fuzz, seed=1):
    specials = [t.content for t in tokenizer.get_added_tokens_decoder().values()]
    for text in texts(fuzz, seed, specials):
        yield {"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids}
    for text in texts(fuzz // 10, seed + 2, specials):
        yield {"text": text, "ids": tokenizer.encode(text).ids, "marks": True}
    tokenizer.encode_special_tokens = True
    for text in texts(fuzz // 10, seed + 1, specials):
        yield {"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids, "special": False}
    tokenizer.encode_special_tokens = False


def gguf_vocabulary(path):
    """The metadata of a GGUF file that describe its tokenizer, as the JSON that the Swift test reads."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    vocabulary = {}
    for key in ("model", "pre", "tokens", "scores", "token_type", "merges", "bos_token_id", "eos_token_id",
                "unknown_token_id", "add_bos_token", "add_space_prefix"):
        if f"tokenizer.ggml.{key}" in fields:
            vocabulary[key] = fields[f"tokenizer.ggml.{key}"].contents()
    return vocabulary


def tokenizer_of(vocabulary):
    """The same vocabulary in Hugging Face's library; byte-level ones with the pre-tokenisers smollm and gpt-2."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    assert vocabulary["model"] == "gpt2" and vocabulary["pre"] in ("smollm", "gpt-2"), "only smollm and gpt-2"
    merges = [tuple(m.split(" ")) for m in vocabulary["merges"]]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(vocabulary["tokens"])}, merges))
    steps = [pre_tokenizers.Digits(individual_digits=True)] if vocabulary["pre"] == "smollm" else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps + [pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False, special=True)
         for t, kind in zip(vocabulary["tokens"], vocabulary["token_type"]) if kind == 3])
    return tokenizer


def write_cases(path, items):
    with open(path, "w", encoding="utf-8") as file:
        for item in items:
            file.write(json.dumps(item, ensure_ascii=False) + "\n")


def compare(path, fuzz):
    from tokenizers import Tokenizer

    with tempfile.TemporaryDirectory() as folder:
        if path.endswith(".gguf"):
            vocabulary = gguf_vocabulary(path)
            path = os.path.join(folder, "vocabulary.json")
            pathlib.Path(path).write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
            tokenizer = tokenizer_of(vocabulary)
        else:
            tokenizer = Tokenizer.from_file(path)
        file = os.path.join(folder, "cases.jsonl")
        write_cases(file, cases(tokenizer, fuzz))
        environment = dict(os.environ, FLASHINFER_TOKENIZER=os.path.abspath(path), FLASHINFER_TOKENIZER_CASES=file)
        command = ["swift", "test", "-c", "release", "--filter", "idsAreThoseOfTheCases"]
        return subprocess.run(command, cwd=ROOT, env=environment).returncode


def trained(name, pre_tokenizer, vocab_size=700, **options):
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    corpus = (FIXTURES / "corpus.txt").read_bytes().decode("utf-8").split("\n")
    specials = ["<unk>", "<s>", "</s>"]
    if pre_tokenizer is None:
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        specials += [f"<0x{b:02X}>" for b in range(256)]
        alphabet = []
    else:
        tokenizer = Tokenizer(models.BPE(**options))
        tokenizer.pre_tokenizer = pre_tokenizer
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size + (256 if pre_tokenizer is None else 0), special_tokens=specials,
        initial_alphabet=alphabet, limit_alphabet=300, show_progress=False, max_token_length=16)
    if pre_tokenizer is None:
        corpus = [word for line in corpus for word in line.split(" ")]
    tokenizer.train_from_iterator(corpus, trainer)
    document = json.loads(tokenizer.to_str())
    if pre_tokenizer is None:
        # The bytes are ordinary entries of the vocabulary, not added tokens.
        document["added_tokens"] = [t for t in document["added_tokens"] if t["id"] < 3]
    tokenizer = Tokenizer.from_str(json.dumps(document))
    tokenizer.add_tokens([
        AddedToken("<tool>", normalized=False, lstrip=True), AddedToken("<end>", normalized=False, rstrip=True),
        AddedToken("whole", normalized=False, single_word=True), AddedToken("Both Sides", normalized=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    (FIXTURES / f"{name}.tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    write_cases(FIXTURES / f"{name}.cases.jsonl", list(golden_cases(tokenizer, 7)))


def sentencepiece_fixture():
    """A SentencePiece BPE model as the metadata of a GGUF file, with the ids of the `sentencepiece` package."""
    import sentencepiece as spm

    with tempfile.TemporaryDirectory() as folder:
        prefix = os.path.join(folder, "m")
        spm.SentencePieceTrainer.train(
            input=str(FIXTURES / "corpus.txt"), model_prefix=prefix, model_type="bpe", vocab_size=1400,
            byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
            character_coverage=0.98, user_defined_symbols=["\t", "<tool>"], split_digits=True,
            allow_whitespace_only_pieces=True, minloglevel=2)
        model = spm.SentencePieceProcessor(model_file=prefix + ".model")
    count = model.get_piece_size()

    def kind(i):
        if model.is_unknown(i):
            return 2
        if model.is_control(i):
            return 3
        if model.is_byte(i):
            return 6
        return 4 if model.id_to_piece(i) in ("\t", "<tool>") else 1

    vocabulary = {
        "model": "llama",
        "tokens": [model.id_to_piece(i) for i in range(count)],
        "scores": [model.get_score(i) for i in range(count)], "token_type": [kind(i) for i in range(count)],
        "bos_token_id": model.bos_id(), "eos_token_id": model.eos_id(), "unknown_token_id": model.unk_id(),
    }
    (FIXTURES / "sentencepiece.vocabulary.json").write_text(
        json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    chosen = [t for t in golden_texts(7) + ["<tool>x", "\ta <tool> b<tool>", " \t", "  x"] if t]
    write_cases(FIXTURES / "sentencepiece.cases.jsonl",
                [{"text": t, "ids": model.encode(t), "special": False} for t in chosen])


def fixtures():
    from tokenizers import Regex
    from tokenizers import pre_tokenizers as pre

    def split(pattern):
        return pre.Sequence([pre.Split(Regex(pattern), "isolated"),
                             pre.ByteLevel(add_prefix_space=False, use_regex=False)])

    trained("llama3", split(LLAMA3), ignore_merges=True)
    trained("qwen2", split(QWEN2))
    trained("gpt2", pre.ByteLevel(add_prefix_space=True))
    trained("smollm", pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)]))
    trained("bytefallback", None)
    sentencepiece_fixture()
    normalisation_fixture()


def normalisation_fixture():
    """Random text dense in scalars that normalisation changes, and what the four forms make of it."""
    from tokenizers import normalizers

    rng = random.Random(5)
    pool = ([chr(c) for c in range(0x80, 0x10000) if assigned(c) and unicodedata.decomposition(chr(c))]
            + [chr(c) for c in range(0x300, 0x10000) if assigned(c) and unicodedata.combining(chr(c))] * 2
            + [chr(c) for c in range(0x1100, 0x1200)] + list("aeiouAEK ") * 20
            + [chr(rng.randrange(0xAC00, 0xD7A4)) for _ in range(300)] + list("\u32ff\ua7f2\ufa2a\u1e9b\u0345") * 9)
    with open(FIXTURES / "normalisation.jsonl", "w", encoding="utf-8") as file:
        for _ in range(400):
            text = "".join(rng.choice(pool) for _ in range(rng.randrange(1, 14)))
            forms = {form: getattr(normalizers, form)().normalize_str(text) for form in ("NFC", "NFD", "NFKC", "NFKD")}
            file.write(json.dumps({"text": text, **forms}) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    comparison = commands.add_parser("compare")
    comparison.add_argument("path")
    comparison.add_argument("--fuzz", type=int, default=20000)
    commands.add_parser("fixtures")
    arguments = parser.parse_args()
    try:
        import tokenizers  # noqa: F401
    except ImportError:
        sys.exit("needs the package tokenizers: pip install tokenizers")
    if arguments.command == "fixtures":
        fixtures()
        return 0
    return compare(arguments.path, arguments.fuzz)


if __name__ == "__main__":
    sys.exit(main())

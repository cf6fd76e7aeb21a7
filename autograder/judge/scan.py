"""Words in a learner's text that a person may want to look at: torch's own attention, and what has no place in an answer.

The text is taken apart into Python's words and not parsed: a parser can be brought to its end by a text that is nested deeply
enough, and this runs on the judge's side. Whoever hides a word on purpose can do so. Nothing here costs points.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable

from autograder.judge.judgement import SUSPICIOUS_OBJECT, SUSPICIOUS_TEXT, TORCH_ATTENTION

MAX_PLACES = 5  # for each flag
_MAX_CHARACTERS = 200_000
# fmt: off
_WORDS = {
    TORCH_ATTENTION: r"\w*scaled_dot_product\w*|multi_head_attention_forward|MultiheadAttention|flex_attention|flash_attn\w*|xformers",
    # A class that decides itself what it equals, or what torch and pickle make of it.
    SUSPICIOUS_OBJECT: r"__eq__|__ne__|__torch_function__|__torch_dispatch__|__reduce__|__reduce_ex__|__getattribute__",
    # Other processes, the interpreter's inside, the notebook's kernel, the network.
    SUSPICIOUS_TEXT: r"_getframe|get_objects|get_referrers|settrace|ctypes|fork|_exit|setsid|ptrace|subprocess|socket"
                     r"|get_ipython|set_custom_exc|showtraceback|input_transformers\w*|do_execute|TracebackException|gradebook",
}
# fmt: on
_PATTERNS = {flag: re.compile(words) for flag, words in _WORDS.items()}
_PATCHES = re.compile(r"^\s*(torch|kernels|autograder|sys\.modules|builtins)\b[\w.\[\]'\"]*\s*=(?!=)", re.M)


def remarks(texts: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Flag -> places, for (cell, text) of the learner's cells."""
    found: dict[str, list[str]] = {}
    for cell, text in texts:
        text = text[:_MAX_CHARACTERS]
        lines = text.split("\n")
        hits = [(flag, line) for word, line in _words(text) for flag in _flags_of(word)]
        hits += [(SUSPICIOUS_TEXT, text.count("\n", 0, m.start(1)) + 1) for m in _PATCHES.finditer(text)]
        for flag, line in sorted(set(hits), key=lambda hit: hit[1]):
            found.setdefault(flag, []).append(f"{cell}, line {line}: {lines[line - 1].strip()[:100]}")
    return {flag: tuple(places[:MAX_PLACES]) for flag, places in found.items()}


def _flags_of(word: str) -> list[str]:
    return [flag for flag, pattern in _PATTERNS.items() if pattern.fullmatch(word)]


def _words(text: str) -> list[tuple[str, int]]:
    """Names, and words inside strings that are no doc-strings, with their lines. Up to where the text is no Python."""
    found = []
    before = tokenize.NEWLINE
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME:
                found.append((token.string, token.start[0]))
            elif token.type == tokenize.STRING and before not in (tokenize.NEWLINE, tokenize.INDENT):
                found += [(word, token.start[0]) for word in re.findall(r"\w+", token.string)]
            if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.DEDENT):
                before = token.type
    except (tokenize.TokenError, SyntaxError, ValueError):
        pass
    return found

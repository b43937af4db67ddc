"""The config.yaml of the public UniAudio code from and to the sizes of a model.

Its infer.py, train.py and utils/dataloader.py (https://github.com/yangdongchao/UniAudio, commit 232e381) read these
fields: `n_layer`, `n_head`, `n_embd`, `block_size`, `non_acoustic_repeat` and `prefix_lm` for the model, whose ids are
the places of `token_list`, and the others for data. Its local stack has min(8, n_layer // 2) layers, and its text
vectors are 768 wide.
"""

import itertools
import re
from collections.abc import Mapping
from typing import Any

from uniaudio_jax.config import PAPER, ModelConfig
from uniaudio_jax.vocab import PUBLIC_RANGES, PUBLIC_TOKENS, SPECIAL_SLOTS, Vocabulary

TEXT_WIDTH = 768
UNUSED = "<unused_special_token>"
SIZES = ("n_layer", "n_head", "n_embd", "block_size", "non_acoustic_repeat", "token_list")
TOKEN = re.compile(r"<(\w+)_\d+>")
TOKENIZERS = {
    "audio": {"audio_tokenizer": "soundstream", "audio_prompt_tokenizer": "audio_prompt", "audio_prompt_length": 3},
    "phone": {"phone_tokenizer": "alignment"},
    "semantic": {"semantic_tokenizer": "hubert", "semantic_tokenizer_duplicate": True},
    "sing_phone": {"singPhoneTokenizer": "sing_phone"},
    "sing_midi": {"singMidiTokenizer": "sing_midi"},
}
"""What switches a range of ids on in the public code."""
NONE = ("text_tokenizer", "FrozenT5Embedder", "sv_bool_tokenizer")


def local_layers(global_layers: int) -> int:
    return min(8, global_layers // 2)


def public_config(model: ModelConfig) -> dict[str, Any]:
    """The fields of config.yaml. Raises ValueError for a model that the public code cannot build."""
    stack, local = model.global_stack, model.local_stack
    found = {
        "layout": model.layout,
        "local layers": local.layers,
        "local heads": local.heads,
        "text_width": model.text_width,
    }
    wanted = {
        "layout": PAPER,
        "local layers": local_layers(stack.layers),
        "local heads": stack.heads,
        "text_width": TEXT_WIDTH,
    }
    if other := [f"{name} {got} (wanted {wanted[name]})" for name, got in found.items() if got != wanted[name]]:
        raise ValueError(
            f"--format uniaudio: the public code cannot build this model: {'; '.join(other)}; leave --format out"
        )
    fields = {name: value for range_ in model.ranges for name, value in TOKENIZERS[range_].items()}
    return {
        "n_layer": stack.layers,
        "n_head": stack.heads,
        "n_embd": stack.width,
        "block_size": model.context_frames,
        "max_length": model.context_frames,
        "non_acoustic_repeat": model.codebooks,
        "prefix_lm": False,
        "whisper_model": True,
        "megabytes": True,
        "use_task_id": True,
        "batch_scale": 10_000,
        "audio_tokenizer_select_every": 1,
        **dict.fromkeys(NONE, "none"),
        **fields,
        "token_list": token_list(model),
    }


def token_list(model: ModelConfig) -> list[str]:
    """The name of every id, as the public code builds them."""
    special = [*PUBLIC_TOKENS, *[UNUSED] * (SPECIAL_SLOTS - len(PUBLIC_TOKENS))]
    ranges = [f"<{name}_{number}>" for name, span in model.ids.ranges.items() for number in range(len(span))]
    tokens = [*special, *ranges]
    return [*tokens, *[UNUSED] * (model.vocabulary_size - len(tokens))][: model.vocabulary_size]


def sizes_of_public(values: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of sizes of a config.yaml, without "text_width". Raises ValueError where fields are missing, or its ids
    mean something else than in this project."""
    if missing := [name for name in SIZES if name not in values]:
        raise ValueError(f"config.yaml of UniAudio: got none of {', '.join(missing)}, wanted {', '.join(SIZES)}")
    tokens, codebooks = list(map(str, values["token_list"])), values["non_acoustic_repeat"]
    if type(codebooks) is not int or codebooks < 1:
        raise ValueError(f"config.yaml of UniAudio: got non_acoustic_repeat={codebooks!r}, wanted a positive integer")
    names = [match[1] if (match := TOKEN.fullmatch(token)) else "" for token in tokens[SPECIAL_SLOTS:]]
    found = {name: len(list(group)) for name, group in itertools.groupby(names) if name}
    entries = (found.get("audio", 1) - 1) // codebooks or ModelConfig.entries
    known = {name: len(span) for name, span in Vocabulary(codebooks, entries).ranges.items()}
    public = [name for name, usual in zip(found, PUBLIC_RANGES, strict=False) if name == usual]
    if tokens[: len(PUBLIC_TOKENS)] != list(PUBLIC_TOKENS) or any(found[name] != known[name] for name in public):
        raise ValueError(
            f"config.yaml of UniAudio: token_list has the ranges {found}, wanted the public special tokens and then "
            f"the first of {known}; this project's ids mean something else"
        )
    return {
        "vocab": len(tokens),
        "context_frames": values["block_size"],
        "width": values["n_embd"],
        "heads": values["n_head"],
        "global_layers": values["n_layer"],
        "local_layers": local_layers(values["n_layer"]),
        "codebooks": codebooks,
        "entries": entries,
        "appended": {name: size for name, size in found.items() if name not in public},
    }

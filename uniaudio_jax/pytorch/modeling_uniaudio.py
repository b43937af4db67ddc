"""UniAudio in plain PyTorch: a language model over the codes of an audio codec (arXiv 2310.00704).

    model, vocabulary, codec = (part.from_pretrained(".") for part in (UniAudio, Vocabulary, Codec))
    prompt = vocabulary.prompt("tts", phone=vocabulary.phones(["HH", "AH0", "L", "OW1"]), speaker_prompt=voice)
    (codes,) = vocabulary.codes(model.generate(**prompt, frames=150, sampling=Sampling(temperature=0.8)))
    wav = codec.decode(codes)

`Vocabulary` and `Codec` are in prompts.py and modeling_codec.py beside this file, which needs PyTorch alone, and
safetensors to read weights. Parameters have the names of the public checkpoints where a model has their layout. Letters
of shapes: B rows, T frames, Q tokens of a frame, D width, V ids, H heads, E width of a head, F frames of all rows, M
text vectors of width W.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SPECIAL_SLOTS, GLOBAL_START, LOCAL_START = 128, 23, 24
"""The number of ids before the audio codes, and the ids of `<mega_global>` and `<mega_local>`."""
START_MARKS = (4, 6, 8, 10, 12, 14, 16, 25, 30, 34, 37, 40, 44, 46, 54)
END_MARKS = tuple(mark + 1 for mark in START_MARKS)
"""The ids of the marks that begin and end a stream."""
ALIGNED_MARKS, NOTHING = (4, 16, 46, 8), -1
"""The start marks of phones, semantic units, sung notes and audio, and what stands for ids where there are none."""

Turn = Callable[[Tensor], Tensor]
"""What queries and keys [B, H, T, E] go through before their scores."""


@dataclass(frozen=True)
class Layout:
    """How the stacks are built; by default as in the public checkpoints."""

    positions: str = "learned"
    norm: str = "layer"
    mlp: str = "gelu"
    biases: bool = True
    query_key_norm: bool = False
    zero_outputs: bool = False
    frame_vectors: str = "concatenated"
    aligned: Sequence[int] = ()
    head: str = "shared"


@dataclass(frozen=True)
class UniAudioConfig:
    """The sizes of a model, as config.json states them."""

    vocab: int
    context_frames: int
    width: int
    heads: int
    global_layers: int
    local_layers: int
    codebooks: int
    text_width: int
    entries: int = 1024
    appended: dict[str, int] = field(default_factory=dict)
    layout: Layout = Layout()

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "UniAudioConfig":
        return cls(**{**values, "layout": Layout(**values.get("layout", {}))})

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def token_width(self) -> int:
        """Width of one token's part of a frame's vector."""
        return self.width // self.codebooks if self.layout.frame_vectors == "concatenated" else self.width

    @property
    def first_ids(self) -> int:
        """Ids that can come at the first level: all but the codes of later ones."""
        return self.vocab - (self.codebooks - 1) * self.entries

    def codes(self, level: int) -> range:
        """The ids of the codes of one level."""
        return range(SPECIAL_SLOTS + level * self.entries, SPECIAL_SLOTS + (level + 1) * self.entries)


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen: among the `top_k` most likely ones (0: all), and of these the fewest that together have
    the probability `top_p`. With temperature 0 the most likely one is taken."""

    temperature: float = 1.0
    top_k: int = 30
    top_p: float = 1.0
    generator: torch.Generator | None = None


GREEDY = Sampling(temperature=0)


class Cache:
    """Keys and values of one attention layer, [B, H, room, E], of which the first `length` are filled."""

    def __init__(self, rows: int, config: UniAudioConfig, room: int, like: Tensor):
        self.keys = like.new_empty(rows, config.heads, room, config.head_width)
        self.values = torch.empty_like(self.keys)
        self.length = 0

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values so far, these included."""
        start, self.length = self.length, self.length + keys.shape[2]
        self.keys[:, :, start : self.length] = keys
        self.values[:, :, start : self.length] = values
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


def rotary(positions: Tensor, head_width: int) -> Turn:
    """Turns pairs of channels, one of each half of a head, by angles that grow with the position (arXiv 2104.09864)."""
    half = head_width // 2
    pace = 10_000.0 ** (-torch.arange(half, device=positions.device) / half)
    angles = positions[:, None, :, None] * pace
    cos, sin = angles.cos(), angles.sin()

    def turn(x: Tensor) -> Tensor:
        one, other, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return torch.cat([one * cos - other * sin, one * sin + other * cos, rest], dim=-1).to(x.dtype)

    return turn


def norm(layout: Layout, width: int) -> nn.Module:
    """A normalisation of vectors."""
    return nn.LayerNorm(width) if layout.norm == "layer" else nn.RMSNorm(width, eps=1e-5)


class Attention(nn.Module):
    """Multi-head attention of x [B, T, D]. Keys have no bias in any case."""

    def __init__(self, config: UniAudioConfig):
        super().__init__()
        self.heads, width, biases = config.heads, config.width, config.layout.biases
        self.query = nn.Linear(width, width, biases)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, biases)
        self.out = nn.Linear(width, width, biases)
        self.query_norm = self.key_norm = nn.Identity()
        if config.layout.query_key_norm:
            self.query_norm, self.key_norm = (nn.RMSNorm(config.head_width, eps=1e-5) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor | None, cache: Cache | None, turn: Turn | None) -> Tensor:
        """Attention under `mask` [B, 1, T, T]; without one, causal. A filled cache takes one frame at a time."""
        rows, frames, width = x.shape
        query, keys, values = (
            part(x).view(rows, frames, self.heads, width // self.heads).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        query, keys = self.query_norm(query), self.key_norm(keys)
        if turn is not None:
            query, keys = turn(query), turn(keys)
        if cache is not None:
            keys, values = cache.append(keys, values)
        causal = mask is None and frames > 1
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, is_causal=causal)
        return self.out(mixed.transpose(1, 2).reshape(rows, frames, width))


class SquaredRelu(nn.Module):
    """max(x, 0)²."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


class Block(nn.Module):
    """x + attn(attn_ln(x)), then x + mlp(mlp_ln(x))."""

    def __init__(self, config: UniAudioConfig):
        super().__init__()
        layout, width, hidden = config.layout, config.width, 4 * config.width
        activation = nn.GELU() if layout.mlp == "gelu" else SquaredRelu()
        self.attn = Attention(config)
        self.attn_ln = norm(layout, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden, layout.biases), activation, nn.Linear(hidden, width, layout.biases)
        )
        self.mlp_ln = norm(layout, width)

    def forward(self, x: Tensor, mask: Tensor | None, cache: Cache | None, turn: Turn | None) -> Tensor:
        x = x + self.attn(self.attn_ln(x), mask, cache, turn)
        return x + self.mlp(self.mlp_ln(x))


def run_blocks(
    blocks: nn.ModuleList,
    x: Tensor,
    mask: Tensor | None = None,
    caches: Sequence[Cache] | None = None,
    turn: Turn | None = None,
) -> Tensor:
    """The output of the last block; `caches` has one for each block."""
    for layer, block in enumerate(blocks):
        x = block(x, mask, None if caches is None else caches[layer], turn)
    return x


class SharedHead(nn.Linear):
    """One linear map to the logits of all ids, at all levels."""

    def __init__(self, config: UniAudioConfig):
        super().__init__(config.width, config.vocab, bias=False)

    def level(self, x: Tensor, level: int, first: Tensor | None) -> Tensor:
        """Logits of one level, given the frame's first token where the level is a later one."""
        return F.linear(x, self.weight)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Logits of all levels."""
        return F.linear(x, self.weight)

    def nats(self, x: Tensor, tokens: Tensor) -> Tensor:
        """The summed loss of the tokens."""
        return F.cross_entropy(self(x, tokens).flatten(0, 1), tokens.long().flatten(), reduction="sum")


class LevelsHead(nn.Module):
    """A linear map for each level, over the ids that can come there.

    First comes any id but a code of a later level, then that level's codes where the first token is a code; where it is
    none, the other tokens of the frame repeat it.
    """

    def __init__(self, config: UniAudioConfig):
        super().__init__()
        self.config, width = config, config.width
        self.first = nn.Linear(width, config.first_ids, bias=False)
        self.later = nn.ModuleList(nn.Linear(width, config.entries, bias=False) for _ in range(config.codebooks - 1))

    def level(self, x: Tensor, level: int, first: Tensor | None) -> Tensor:
        """Logits of one level, given the frame's first token where the level is a later one."""
        config, codes = self.config, self.config.codes(level)
        logits = x.new_full((len(x), config.vocab), -1e30)
        if first is None:
            made, end = self.first(x), codes.stop
            behind = config.first_ids - end
            logits[:, :end], logits[:, config.vocab - behind :] = made[:, :end], made[:, end:]
            return logits
        repeated = logits.scatter(1, first.long()[:, None], 0.0)
        logits[:, codes.start : codes.stop] = self.later[level - 1](x)
        return torch.where(self._is_code(first)[:, None], logits, repeated)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Logits of all levels."""
        firsts = [None] + [tokens[:, 0]] * (self.config.codebooks - 1)
        return torch.stack([self.level(x[:, level], level, first) for level, first in enumerate(firsts)], dim=1)

    def nats(self, x: Tensor, tokens: Tensor) -> Tensor:
        """The summed loss of the tokens."""
        tokens, codes = tokens.long(), self.config.codes(0)
        places = tokens[:, 0] - torch.where(tokens[:, 0] < codes.stop, 0, (self.config.codebooks - 1) * len(codes))
        total = F.cross_entropy(self.first(x[:, 0]), places, reduction="sum")
        is_code = self._is_code(tokens[:, 0])
        for level, head in enumerate(self.later, start=1):
            targets = tokens[is_code, level] - self.config.codes(level).start
            total = total + F.cross_entropy(head(x[is_code, level]), targets, reduction="sum")
        return total

    def _is_code(self, tokens: Tensor) -> Tensor:
        codes = self.config.codes(0)
        return (tokens >= codes.start) & (tokens < codes.stop)


class UniAudio(nn.Module):
    """Tokens [B, T, Q] to logits [B, T, Q, V]; logits at (t, q) predict token (t, q)."""

    def __init__(self, config: UniAudioConfig):
        super().__init__()
        self.config, layout, width = config, config.layout, config.width
        self.g_emb = nn.Embedding(config.vocab, config.token_width)
        if layout.positions == "learned":
            self.g_pos = nn.Embedding(config.context_frames, width)
        if layout.aligned:
            self.g_aligned = nn.Linear(len(layout.aligned) * width, width, bias=False)
        self.g_layers = nn.ModuleList([Block(config) for _ in range(config.global_layers)])
        self.g_ln = norm(layout, width)
        self.l_emb = nn.Embedding(config.vocab, width)
        self.l_pos = nn.Embedding(config.codebooks, width)
        self.l_layers = nn.ModuleList([Block(config) for _ in range(config.local_layers)])
        self.l_ln = norm(layout, width)
        self.g2l_linear = nn.Linear(config.token_width, width)
        self.lm_head = SharedHead(config) if layout.head == "shared" else LevelsHead(config)
        self.continuous_mappings = nn.ModuleDict({"text_t5": nn.Linear(config.text_width, width)})
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.normal_(part.weight, std=0.02)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "UniAudio":
        """The model of config.json and model.safetensors, or its shards, in a folder; on the CPU, for inference."""
        folder = Path(folder)
        model = cls(UniAudioConfig.from_json(json.loads((folder / "config.json").read_text(encoding="utf-8"))))
        model.load_state_dict(read_weights(folder))
        return model.eval()

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        segment_ids: Tensor | None = None,
        text_vectors: Tensor | None = None,
        text_slots: Tensor | None = None,
    ) -> Tensor:
        """Logits of every token. Segments keep packed examples apart; text_slots index text_vectors, -1 is none.

        Without segment_ids a row is one example; without positions they count from 0 in each segment.
        """
        vectors = self.global_vectors(tokens, positions, segment_ids, text_vectors, text_slots)
        return self.local_logits(vectors.flatten(0, 1), tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])

    def loss(
        self,
        tokens: Tensor,
        loss_mask: Tensor,
        positions: Tensor | None = None,
        segment_ids: Tensor | None = None,
        text_vectors: Tensor | None = None,
        text_slots: Tensor | None = None,
        *,
        local_on_all_frames: bool = False,
    ) -> Tensor:
        """Mean nats per token of the frames in `loss_mask`; 0 where there are none.

        The local stack runs over those frames alone, or, as in the public training code, over all frames.
        """
        vectors, wanted = (
            self.global_vectors(tokens, positions, segment_ids, text_vectors, text_slots),
            tokens[loss_mask],
        )
        if local_on_all_frames:
            logits = self.local_logits(vectors.flatten(0, 1), tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
            nats = F.cross_entropy(logits[loss_mask].flatten(0, 1), wanted.long().flatten(), reduction="sum")
        else:
            nats = self.lm_head.nats(self.local_vectors(vectors[loss_mask], wanted), wanted)
        return nats / max(wanted.numel(), 1)

    @torch.no_grad()
    def generate(
        self,
        prefix: Tensor,
        frames: int,
        allowed: Tensor | None = None,
        text_vectors: Tensor | None = None,
        text_slots: Tensor | None = None,
        end: int | None = None,
        sampling: Sampling = GREEDY,
    ) -> Tensor:
        """At most `frames` frames [B, T, Q] after prefixes [B, P, Q] of one length, chosen token by token among the
        `allowed` [Q, V] ids of each level; text_slots: [B, P].

        A row ends where its first token is `end`, which needs not be allowed: that frame and all later ones are `end`
        throughout. Raises ValueError when prefix and frames do not fit into the context.
        """
        rows, start, codebooks = prefix.shape
        if start + frames > self.config.context_frames:
            raise ValueError(
                f"generate: got a prefix of {start} and {frames} frames, wanted at most context_frames="
                f"{self.config.context_frames} together; ask for fewer frames"
            )
        caches = [Cache(rows, self.config, start + frames, self.g_emb.weight) for _ in self.g_layers]
        generated = prefix.new_empty(rows, frames, codebooks)
        room = prefix.new_full((rows, 1, codebooks), GLOBAL_START)  # shifted out: stands where the first frame will be
        slots = None if text_slots is None else F.pad(text_slots, (0, 1), value=-1)
        tokens = torch.cat([prefix, room], dim=1)
        positions = count_positions(tokens, None)
        x = self.global_inputs(tokens, positions, text_vectors, slots)
        if self.config.layout.aligned:
            whole = F.pad(prefix, (0, 0, 0, frames))
            found = aligned_frames(whole, count_positions(whole, None), self.config.layout.aligned)
            later = self.of_conditions(found[:, start:])
        for frame in range(frames):
            x = run_blocks(self.g_layers, x, caches=caches, turn=self.turn(positions))
            generated[:, frame] = self.next_frame(self.g_ln(x[:, -1]), allowed, end, sampling)
            if end is not None:
                over = (generated[:, : frame + 1, 0] == end).any(1)
                generated[over, frame] = end
                if over.all():
                    return generated[:, : frame + 1]
            positions = positions[:, -1:] + 1
            if frame + 1 < frames:
                x = self.frame_vectors(generated[:, frame : frame + 1])
                x = self.placed(x + later[:, frame + 1, None] if self.config.layout.aligned else x, positions)
        return generated

    def turn(self, positions: Tensor) -> Turn | None:
        """What rotary positions do to queries and keys of the global stack; None where positions are learned."""
        is_rotary = self.config.layout.positions == "rotary"
        return rotary(positions, self.config.head_width) if is_rotary else None

    def placed(self, x: Tensor, positions: Tensor) -> Tensor:
        """The vectors with their learned positions, where there are such."""
        return x + self.g_pos(positions) if self.config.layout.positions == "learned" else x

    def frame_vectors(self, tokens: Tensor) -> Tensor:
        """The vector of each frame: those of its tokens one after the other, or their sum."""
        vectors = self.g_emb(tokens)
        return vectors.flatten(2) if self.config.layout.frame_vectors == "concatenated" else vectors.sum(2)

    def global_inputs(
        self, tokens: Tensor, positions: Tensor, text_vectors: Tensor | None, text_slots: Tensor | None
    ) -> Tensor:
        """The vector of the frame before each frame (`<mega_global>` at position 0), plus the position."""
        first = positions == 0
        before = tokens.roll(1, dims=1).masked_fill(first.unsqueeze(-1), GLOBAL_START)
        x = self.frame_vectors(before)
        if text_vectors is not None and text_slots is not None:
            slots = text_slots.roll(1, dims=1).masked_fill(first, -1)
            mapped = self.continuous_mappings["text_t5"](text_vectors)
            indices = slots.clamp(min=0).long().unsqueeze(-1).expand(-1, -1, mapped.shape[-1])
            x = torch.where((slots >= 0).unsqueeze(-1), mapped.gather(1, indices), x)
        if self.config.layout.aligned:
            x = x + self.of_conditions(aligned_frames(tokens, positions, self.config.layout.aligned))
        return self.placed(x, positions)

    def of_conditions(self, aligned: Tensor) -> Tensor:
        """What frames [B, T, D] get of the frames of conditions at their time and ahead of it [B, T, A, K, Q]."""
        vectors = self.g_emb(aligned.clamp(min=0))
        vectors = vectors.flatten(4) if self.config.layout.frame_vectors == "concatenated" else vectors.sum(4)
        return self.g_aligned((vectors * (aligned[..., :1] != NOTHING)).sum(3).flatten(2))

    def global_vectors(
        self,
        tokens: Tensor,
        positions: Tensor | None,
        segment_ids: Tensor | None,
        text_vectors: Tensor | None,
        text_slots: Tensor | None,
    ) -> Tensor:
        """One vector for each frame, out of the frames before it in its segment."""
        if positions is None:
            positions = count_positions(tokens, segment_ids)
        x = self.global_inputs(tokens, positions, text_vectors, text_slots)
        mask = None
        if segment_ids is not None:
            same = segment_ids.unsqueeze(2) == segment_ids.unsqueeze(1)
            mask = same.tril().unsqueeze(1)
        return self.g_ln(run_blocks(self.g_layers, x, mask, turn=self.turn(positions)))

    def local_logits(self, vectors: Tensor, tokens: Tensor) -> Tensor:
        """Logits of the tokens of each frame, given its vector and the tokens before them in the frame."""
        return self.lm_head(self.local_vectors(vectors, tokens), tokens)

    def local_vectors(self, vectors: Tensor, tokens: Tensor) -> Tensor:
        """What the head maps to logits."""
        before = F.pad(tokens[:, :-1], (1, 0), value=LOCAL_START)
        x = self.l_emb(before) + self.linked(vectors) + self.l_pos.weight
        return self.l_ln(run_blocks(self.l_layers, x))

    def linked(self, vectors: Tensor) -> Tensor:
        """Each level's share of the frame's vector, or all of it, mapped to the local width."""
        levels = self.config.codebooks
        if self.config.layout.frame_vectors == "concatenated":
            return self.g2l_linear(vectors.unflatten(1, (levels, -1)))
        return self.g2l_linear(vectors).unsqueeze(1).expand(-1, levels, -1)

    def next_frame(self, vectors: Tensor, allowed: Tensor | None, end: int | None, sampling: Sampling) -> Tensor:
        """The tokens [B, Q] of the frames of these vectors [B, D], chosen one after the other."""
        rows, levels = len(vectors), self.config.codebooks
        caches = [Cache(rows, self.config, levels, vectors) for _ in self.l_layers]
        inputs = self.linked(vectors) + self.l_pos.weight
        token, tokens = torch.full((rows,), LOCAL_START, device=vectors.device), []
        for level in range(levels):
            x = run_blocks(self.l_layers, (self.l_emb(token) + inputs[:, level]).unsqueeze(1), caches=caches)
            logits = self.lm_head.level(self.l_ln(x[:, 0]), level, tokens[0] if tokens else None)
            kept = logits if allowed is None else logits.masked_fill(~allowed[level], -torch.inf)
            token = choose(kept, logits, end if level == 0 else None, sampling)
            tokens.append(token)
        return torch.stack(tokens, dim=1)


def choose(allowed: Tensor, logits: Tensor, end: int | None, sampling: Sampling) -> Tensor:
    """A token [B] for each row of logits [B, V]: among the `allowed` ones, whose others are -inf, or `end` where it may
    come.

    The end is drawn with its probability beside all allowed tokens, if it is at least as likely as the last one that is
    kept: its share among those alone would end most rows too early.
    """
    if sampling.temperature == 0:
        token = allowed.argmax(-1)
        return token if end is None else torch.where(logits[:, end] > allowed.amax(-1), end, token)
    scaled = allowed / sampling.temperature
    kept = keep(scaled, sampling)
    token = torch.multinomial(kept.softmax(-1), 1, generator=sampling.generator)[:, 0]
    if end is None:
        return token
    ending = logits[:, end] / sampling.temperature
    chance = torch.sigmoid(ending - scaled.logsumexp(-1))
    least = torch.where(kept == -torch.inf, torch.inf, kept).amin(-1)
    drawn = torch.rand(chance.shape, device=chance.device, generator=sampling.generator)
    return torch.where((drawn < chance) & (ending >= least), end, token)


def keep(scaled: Tensor, sampling: Sampling) -> Tensor:
    """The logits [B, V] with -inf for those that are not among the `top_k`, and not among the share `top_p`."""
    best, places = scaled.sort(descending=True)
    chances = best.softmax(-1)
    dropped = chances.cumsum(-1) - chances >= sampling.top_p
    dropped[:, sampling.top_k or scaled.shape[-1] :] = True
    return scaled.masked_fill(dropped.scatter(1, places, dropped), -torch.inf)


def count_positions(tokens: Tensor, segment_ids: Tensor | None) -> Tensor:
    """Frames counted from 0 in each segment; without segments, in each row."""
    frames = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[:2])
    if segment_ids is None:
        return frames
    begins = F.pad(segment_ids[:, 1:] != segment_ids[:, :-1], (1, 0), value=True)
    return frames - torch.where(begins, frames, 0).cummax(dim=1).values


def aligned_frames(tokens: Tensor, positions: Tensor, ahead: Sequence[int]) -> Tensor:
    """For each frame, the frames [B, T, A, K, Q] of each kind of ALIGNED_MARKS that lie as far behind its mark, and
    each of the A `ahead` further.

    A frame belongs to the stream whose mark came last before it. Of each kind the last stream that began before that
    one in the same example counts; where there is none, or it is shorter, the ids are NOTHING.
    """
    first, places = tokens[..., 0], torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[:2])
    start = places - positions

    def last(is_one: Tensor) -> Tensor:
        """The place of the last one up to each place; -1 where there is none."""
        return torch.where(is_one, places, -1).cummax(dim=1).values

    def before(values: Tensor) -> Tensor:
        return F.pad(values[:, :-1], (1, 0), value=-1)

    def at(values: Tensor, where: Tensor) -> Tensor:
        return values.gather(1, where.clamp(0, tokens.shape[1] - 1))

    starts, ends = (torch.tensor(marks, device=tokens.device) for marks in (START_MARKS, END_MARKS))
    own, last_end = before(last(torch.isin(first, starts))), last(torch.isin(first, ends))
    found = []
    for more in ahead:
        for mark in ALIGNED_MARKS:
            begun = at(before(last(first == mark)), own)
            source = begun + places - own + more
            is_there = (own >= start) & (begun >= start) & (source < own) & (at(last_end, source) < begun)
            where = source.clamp(0, tokens.shape[1] - 1).unsqueeze(-1)
            found.append(torch.where(is_there.unsqueeze(-1), tokens.gather(1, where.expand_as(tokens)), NOTHING))
    return torch.stack(found, dim=2).unflatten(2, (len(ahead), len(ALIGNED_MARKS)))


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of model.safetensors, or of the shards that model.safetensors.index.json names."""
    from safetensors.torch import load_file

    index = folder / "model.safetensors.index.json"
    files = {"model.safetensors"}
    if index.is_file():
        files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return {name: tensor for file in sorted(files) for name, tensor in load_file(folder / file).items()}

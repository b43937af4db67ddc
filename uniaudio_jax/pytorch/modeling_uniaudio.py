"""The multi-scale Transformer of UniAudio in PyTorch, in the parameter names of the public checkpoints where it has
their layout.

The JAX model is tested and timed against it, so it is written as one would for eager PyTorch: fused attention,
caches that are allocated once, and in training a local stack over the frames that count.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from uniaudio_jax.config import LayoutConfig, ModelConfig, StackConfig
from uniaudio_jax.vocab import GLOBAL_START, LOCAL_START

Turn = Callable[[Tensor], Tensor]
"""What queries and keys [B, H, T, E] go through before their scores."""


class Cache:
    """Keys and values of one attention layer, [B, H, room, E], of which the first `length` are filled."""

    def __init__(self, rows: int, stack: StackConfig, room: int, like: Tensor):
        self.keys = like.new_empty(rows, stack.heads, room, stack.head_width)
        self.values = torch.empty_like(self.keys)
        self.length = 0

    def append(self, keys: Float[Tensor, "B H T E"], values: Float[Tensor, "B H T E"]) -> tuple[Tensor, Tensor]:
        """All keys and values so far, these included."""
        start, self.length = self.length, self.length + keys.shape[2]
        self.keys[:, :, start : self.length] = keys
        self.values[:, :, start : self.length] = values
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


def rotary(positions: Int[Tensor, "B T"], head_width: int) -> Turn:
    """Turns pairs of channels, one of each half of a head, by angles that grow with the position (arXiv 2104.09864)."""
    half = head_width // 2
    pace = 10_000.0 ** (-torch.arange(half, device=positions.device) / half)
    angles = positions[:, None, :, None] * pace
    cos, sin = angles.cos(), angles.sin()

    def turn(x: Float[Tensor, "B H T E"]) -> Float[Tensor, "B H T E"]:
        one, other, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return torch.cat([one * cos - other * sin, one * sin + other * cos, rest], dim=-1).to(x.dtype)

    return turn


def norm(layout: LayoutConfig, width: int) -> nn.Module:
    """A normalisation of vectors."""
    return nn.LayerNorm(width) if layout.norm == "layer" else nn.RMSNorm(width, eps=1e-5)


class Attention(nn.Module):
    """Multi-head attention. Keys have no bias in any case."""

    def __init__(self, stack: StackConfig, layout: LayoutConfig):
        super().__init__()
        self.heads = stack.heads
        self.query = nn.Linear(stack.width, stack.width, layout.biases)
        self.key = nn.Linear(stack.width, stack.width, bias=False)
        self.value = nn.Linear(stack.width, stack.width, layout.biases)
        self.out = nn.Linear(stack.width, stack.width, layout.biases)
        self.query_norm = self.key_norm = nn.Identity()
        if layout.query_key_norm:
            self.query_norm, self.key_norm = (nn.RMSNorm(stack.head_width, eps=1e-5) for _ in range(2))

    def forward(
        self, x: Float[Tensor, "B T D"], mask: Tensor | None, cache: Cache | None, turn: Turn | None
    ) -> Float[Tensor, "B T D"]:
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

    def __init__(self, stack: StackConfig, layout: LayoutConfig):
        super().__init__()
        hidden = stack.hidden
        activation = nn.GELU() if layout.mlp == "gelu" else SquaredRelu()
        self.attn = Attention(stack, layout)
        self.attn_ln = norm(layout, stack.width)
        self.mlp = nn.Sequential(
            nn.Linear(stack.width, hidden, layout.biases), activation, nn.Linear(hidden, stack.width, layout.biases)
        )
        self.mlp_ln = norm(layout, stack.width)

    def forward(
        self, x: Float[Tensor, "B T D"], mask: Tensor | None, cache: Cache | None, turn: Turn | None
    ) -> Float[Tensor, "B T D"]:
        x = x + self.attn(self.attn_ln(x), mask, cache, turn)
        return x + self.mlp(self.mlp_ln(x))


def run_blocks(
    blocks: nn.ModuleList,
    x: Tensor,
    mask: Tensor | None = None,
    caches: list[Cache] | None = None,
    turn: Turn | None = None,
) -> Tensor:
    """The output of the last block; `caches` has one for each block."""
    for layer, block in enumerate(blocks):
        x = block(x, mask, None if caches is None else caches[layer], turn)
    return x


class SharedHead(nn.Linear):
    """One linear map to the logits of all ids, at all levels."""

    def __init__(self, config: ModelConfig):
        super().__init__(config.local_stack.width, config.vocabulary_size, bias=False)

    def level(self, x: Float[Tensor, "F D"], level: int, first: Int[Tensor, " F"] | None) -> Float[Tensor, "F V"]:
        """Logits of one level, given the frame's first token where the level is a later one."""
        return F.linear(x, self.weight)

    def forward(self, x: Float[Tensor, "F Q D"], tokens: Int[Tensor, "F Q"]) -> Float[Tensor, "F Q V"]:
        """Logits of all levels."""
        return F.linear(x, self.weight)

    def nats(self, x: Float[Tensor, "F Q D"], tokens: Int[Tensor, "F Q"]) -> Float[Tensor, ""]:
        """The summed loss of the tokens."""
        return F.cross_entropy(self(x, tokens).flatten(0, 1), tokens.long().flatten(), reduction="sum")


class LevelsHead(nn.Module):
    """A linear map for each level, over the ids that can come there; see uniaudio_jax/model/heads/levels.py."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config, width = config, config.local_stack.width
        self.first = nn.Linear(width, config.first_ids, bias=False)
        self.later = nn.ModuleList(nn.Linear(width, config.entries, bias=False) for _ in range(config.codebooks - 1))

    def level(self, x: Float[Tensor, "F D"], level: int, first: Int[Tensor, " F"] | None) -> Float[Tensor, "F V"]:
        """Logits of one level, given the frame's first token where the level is a later one."""
        config, codes = self.config, self.config.ids.level(level)
        logits = x.new_full((len(x), config.vocabulary_size), -1e30)
        if first is None:
            made, end = self.first(x), codes.stop
            behind = config.first_ids - end
            logits[:, :end], logits[:, config.vocabulary_size - behind :] = made[:, :end], made[:, end:]
            return logits
        repeated = logits.scatter(1, first.long()[:, None], 0.0)
        logits[:, codes.start : codes.stop] = self.later[level - 1](x)
        return torch.where(self._is_code(first)[:, None], logits, repeated)

    def forward(self, x: Float[Tensor, "F Q D"], tokens: Int[Tensor, "F Q"]) -> Float[Tensor, "F Q V"]:
        """Logits of all levels."""
        firsts = [None] + [tokens[:, 0]] * (self.config.codebooks - 1)
        return torch.stack([self.level(x[:, level], level, first) for level, first in enumerate(firsts)], dim=1)

    def nats(self, x: Float[Tensor, "F Q D"], tokens: Int[Tensor, "F Q"]) -> Float[Tensor, ""]:
        """The summed loss of the tokens."""
        tokens, codes = tokens.long(), self.config.ids.level(0)
        places = tokens[:, 0] - torch.where(tokens[:, 0] < codes.stop, 0, (self.config.codebooks - 1) * len(codes))
        total = F.cross_entropy(self.first(x[:, 0]), places, reduction="sum")
        is_code = self._is_code(tokens[:, 0])
        for level, head in enumerate(self.later, start=1):
            targets = tokens[is_code, level] - self.config.ids.level(level).start
            total = total + F.cross_entropy(head(x[is_code, level]), targets, reduction="sum")
        return total

    def _is_code(self, tokens: Int[Tensor, " F"]) -> Bool[Tensor, " F"]:
        codes = self.config.ids.level(0)
        return (tokens >= codes.start) & (tokens < codes.stop)


class TorchUniAudio(nn.Module):
    """Tokens [B, T, Q] to logits [B, T, Q, V]; logits at (t, q) predict token (t, q)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config, layout, width = config, config.layout, config.global_stack.width
        self.g_emb = nn.Embedding(config.vocabulary_size, config.token_width)
        if layout.positions == "learned":
            self.g_pos = nn.Embedding(config.context_frames, width)
        self.g_layers = nn.ModuleList([Block(config.global_stack, layout) for _ in range(config.global_stack.layers)])
        self.g_ln = norm(layout, width)
        self.l_emb = nn.Embedding(config.vocabulary_size, width)
        self.l_pos = nn.Embedding(config.codebooks, width)
        self.l_layers = nn.ModuleList([Block(config.local_stack, layout) for _ in range(config.local_stack.layers)])
        self.l_ln = norm(layout, width)
        self.g2l_linear = nn.Linear(config.token_width, width)
        self.lm_head = SharedHead(config) if layout.head == "shared" else LevelsHead(config)
        self.continuous_mappings = nn.ModuleDict({"text_t5": nn.Linear(config.text_width, width)})
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.normal_(part.weight, std=0.02)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)

    def forward(
        self,
        tokens: Int[Tensor, "B T Q"],
        positions: Int[Tensor, "B T"] | None = None,
        segment_ids: Int[Tensor, "B T"] | None = None,
        text_vectors: Float[Tensor, "B M W"] | None = None,
        text_slots: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T Q V"]:
        """Logits of every token. Segments keep packed examples apart; text_slots index text_vectors, -1 is none.

        Without segment_ids a row is one example; without positions they count from 0 in each segment.
        """
        vectors = self.global_vectors(tokens, positions, segment_ids, text_vectors, text_slots)
        return self.local_logits(vectors.flatten(0, 1), tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])

    def loss(
        self,
        tokens: Int[Tensor, "B T Q"],
        loss_mask: Bool[Tensor, "B T"],
        positions: Int[Tensor, "B T"] | None = None,
        segment_ids: Int[Tensor, "B T"] | None = None,
        text_vectors: Float[Tensor, "B M W"] | None = None,
        text_slots: Int[Tensor, "B T"] | None = None,
        *,
        local_on_all_frames: bool = False,
    ) -> Float[Tensor, ""]:
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
        prefix: Int[Tensor, "B P Q"],
        frames: int,
        allowed: Bool[Tensor, "Q V"] | None = None,
        text_vectors: Float[Tensor, "B M W"] | None = None,
        text_slots: Int[Tensor, "B P"] | None = None,
    ) -> Int[Tensor, "B frames Q"]:
        """The `frames` most likely frames after prefixes of one length, chosen token by token among `allowed` ids.

        Raises ValueError when prefix and frames do not fit into the context.
        """
        rows, start, codebooks = prefix.shape
        if start + frames > self.config.context_frames:
            raise ValueError(
                f"generate: got a prefix of {start} and {frames} frames, wanted at most context_frames="
                f"{self.config.context_frames} together; ask for fewer frames"
            )
        stack = self.config.global_stack
        caches = [Cache(rows, stack, start + frames, self.g_emb.weight) for _ in self.g_layers]
        generated = prefix.new_empty(rows, frames, codebooks)
        room = prefix.new_full((rows, 1, codebooks), GLOBAL_START)  # shifted out: stands where the first frame will be
        slots = None if text_slots is None else F.pad(text_slots, (0, 1), value=-1)
        tokens = torch.cat([prefix, room], dim=1)
        positions = count_positions(tokens, None)
        x = self.global_inputs(tokens, positions, text_vectors, slots)
        for frame in range(frames):
            x = run_blocks(self.g_layers, x, caches=caches, turn=self.turn(positions))
            generated[:, frame] = self.greedy_frame(self.g_ln(x[:, -1]), allowed)
            positions = positions[:, -1:] + 1
            if frame + 1 < frames:
                x = self.placed(self.frame_vectors(generated[:, frame : frame + 1]), positions)
        return generated

    def turn(self, positions: Int[Tensor, "B T"]) -> Turn | None:
        """What rotary positions do to queries and keys of the global stack; None where positions are learned."""
        is_rotary = self.config.layout.positions == "rotary"
        return rotary(positions, self.config.global_stack.head_width) if is_rotary else None

    def placed(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """The vectors with their learned positions, where there are such."""
        return x + self.g_pos(positions) if self.config.layout.positions == "learned" else x

    def frame_vectors(self, tokens: Int[Tensor, "B T Q"]) -> Float[Tensor, "B T D"]:
        """The vector of each frame: those of its tokens one after the other, or their sum."""
        vectors = self.g_emb(tokens)
        return vectors.flatten(2) if self.config.layout.frame_vectors == "concatenated" else vectors.sum(2)

    def global_inputs(
        self,
        tokens: Int[Tensor, "B T Q"],
        positions: Int[Tensor, "B T"],
        text_vectors: Float[Tensor, "B M W"] | None,
        text_slots: Int[Tensor, "B T"] | None,
    ) -> Float[Tensor, "B T D"]:
        """The vector of the frame before each frame (`<mega_global>` at position 0), plus the position."""
        first = positions == 0
        before = tokens.roll(1, dims=1).masked_fill(first.unsqueeze(-1), GLOBAL_START)
        x = self.frame_vectors(before)
        if text_vectors is not None and text_slots is not None:
            slots = text_slots.roll(1, dims=1).masked_fill(first, -1)
            mapped = self.continuous_mappings["text_t5"](text_vectors)
            indices = slots.clamp(min=0).long().unsqueeze(-1).expand(-1, -1, mapped.shape[-1])
            x = torch.where((slots >= 0).unsqueeze(-1), mapped.gather(1, indices), x)
        return self.placed(x, positions)

    def global_vectors(
        self,
        tokens: Int[Tensor, "B T Q"],
        positions: Int[Tensor, "B T"] | None,
        segment_ids: Int[Tensor, "B T"] | None,
        text_vectors: Float[Tensor, "B M W"] | None,
        text_slots: Int[Tensor, "B T"] | None,
    ) -> Float[Tensor, "B T D"]:
        """One vector for each frame, out of the frames before it in its segment."""
        if positions is None:
            positions = count_positions(tokens, segment_ids)
        x = self.global_inputs(tokens, positions, text_vectors, text_slots)
        mask = None
        if segment_ids is not None:
            same = segment_ids.unsqueeze(2) == segment_ids.unsqueeze(1)
            mask = same.tril().unsqueeze(1)
        return self.g_ln(run_blocks(self.g_layers, x, mask, turn=self.turn(positions)))

    def local_logits(self, vectors: Float[Tensor, "F D"], tokens: Int[Tensor, "F Q"]) -> Float[Tensor, "F Q V"]:
        """Logits of the tokens of each frame, given its vector and the tokens before them in the frame."""
        return self.lm_head(self.local_vectors(vectors, tokens), tokens)

    def local_vectors(self, vectors: Float[Tensor, "F D"], tokens: Int[Tensor, "F Q"]) -> Float[Tensor, "F Q D"]:
        """What the head maps to logits."""
        before = F.pad(tokens[:, :-1], (1, 0), value=LOCAL_START)
        x = self.l_emb(before) + self.linked(vectors) + self.l_pos.weight
        return self.l_ln(run_blocks(self.l_layers, x))

    def linked(self, vectors: Float[Tensor, "F D"]) -> Float[Tensor, "F Q D"]:
        """Each level's share of the frame's vector, or all of it, mapped to the local width."""
        levels = self.config.codebooks
        if self.config.layout.frame_vectors == "concatenated":
            return self.g2l_linear(vectors.unflatten(1, (levels, -1)))
        return self.g2l_linear(vectors).unsqueeze(1).expand(-1, levels, -1)

    def greedy_frame(self, vectors: Float[Tensor, "B D"], allowed: Bool[Tensor, "Q V"] | None) -> Int[Tensor, "B Q"]:
        """The most likely allowed token of each level, one after the other."""
        rows, levels = len(vectors), self.config.codebooks
        caches = [Cache(rows, self.config.local_stack, levels, vectors) for _ in self.l_layers]
        inputs = self.linked(vectors) + self.l_pos.weight
        token, tokens = torch.full((rows,), LOCAL_START, device=vectors.device), []
        for level in range(levels):
            x = run_blocks(self.l_layers, (self.l_emb(token) + inputs[:, level]).unsqueeze(1), caches=caches)
            logits = self.lm_head.level(self.l_ln(x[:, 0]), level, tokens[0] if tokens else None)
            if allowed is not None:
                logits = logits.masked_fill(~allowed[level], -torch.inf)
            token = logits.argmax(-1)
            tokens.append(token)
        return torch.stack(tokens, dim=1)


def count_positions(tokens: Int[Tensor, "B T Q"], segment_ids: Int[Tensor, "B T"] | None) -> Int[Tensor, "B T"]:
    """Frames counted from 0 in each segment; without segments, in each row."""
    frames = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[:2])
    if segment_ids is None:
        return frames
    begins = F.pad(segment_ids[:, 1:] != segment_ids[:, :-1], (1, 0), value=True)
    return frames - torch.where(begins, frames, 0).cummax(dim=1).values

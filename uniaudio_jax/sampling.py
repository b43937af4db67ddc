"""How a token is chosen: temperature, the most likely codes, the end, and codes that repeat themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from uniaudio_jax.checked import Checked
from uniaudio_jax.model.kernels.kernel import MASKED

DRAWS = 3
"""Random numbers for a token: whether the end comes, which code comes, and which comes in place of a repeated one."""
FEW = 128
"""With a top_k up to this only so many codes are sorted; which of the two it is, is compiled in."""
RECENT_FRAMES = 10
"""Frames in which repetitions are counted (K of arXiv 2406.05370)."""


@dataclass(frozen=True, kw_only=True)
class Sampling(Checked):
    """How a token is chosen. Each task and each example draws its own random numbers from a seed."""

    temperature: float | None = None
    """Divides the logits before sampling; 0 takes the most likely token. By default that of a shipped model for the
    task, and 1 for every other."""
    top_k: int = 30
    """Codes are drawn among the k most likely ones; 0 draws among all of the level."""
    top_p: float = 1.0
    """Codes are drawn among the fewest most likely ones that together have this probability."""
    end_bias: float = 0.0
    """Added to the logit of the end: -1 makes an end 2.7 times less likely in each frame, and results longer."""
    most_repeated: float = 1.0
    """A first code with more than this share of the last 10 frames is drawn anew among all codes (VALL-E 2 has 0.1)."""
    guidance: float | None = None
    """Where it is not 1, logits become those without conditions plus so many times what the conditions add: 3 follows
    them more closely than the model does. Each step then works on twice as many rows; for a run that was trained with
    data.condition_dropout. By default that of a shipped model for the task, and 1 for every other."""
    seed: int = 0
    """Start of the random numbers: the same seed gives the same tokens."""
    min_frames: int = 1
    """Frames that are generated before the end may come."""

    def __post_init__(self):
        super().__post_init__()
        at_least_0 = {name: getattr(self, name) for name in ("temperature", "top_k", "guidance", "min_frames")}
        if min(value or 0 for value in at_least_0.values()) < 0:
            told = ", ".join(f"{name}={value}" for name, value in at_least_0.items())
            raise ValueError(f"Sampling: got {told}, wanted none below 0")
        if not (0 < self.top_p <= 1 and 0 <= self.most_repeated <= 1):
            raise ValueError(
                f"Sampling: got top_p={self.top_p}, most_repeated={self.most_repeated}, "
                "wanted shares up to 1, top_p above 0"
            )

    @property
    def rule(self) -> "Rule":
        return Rule(self.temperature == 0, 0 < self.top_k <= FEW, self.guidance not in (None, 1))

    def values(self) -> "Values":
        """The numbers as a program takes them, so that others need no other program."""
        k = self.top_k or np.iinfo(np.int32).max
        temperature, guidance = (1.0 if value is None else value for value in (self.temperature, self.guidance))
        numbers = temperature, self.top_p, self.end_bias, self.most_repeated, guidance
        return Values(*map(np.float32, numbers), top_k=np.int32(k), min_frames=np.int32(self.min_frames))


class Rule(NamedTuple):
    """What of a sampling is compiled in: whether it is greedy, whether only FEW codes are sorted, and whether the
    second half of the rows are the first without conditions."""

    greedy: bool
    few: bool
    guided: bool


class Values(NamedTuple):
    """What of a sampling may change from call to call: numbers, or arrays of one in a program."""

    temperature: Any
    top_p: Any
    end_bias: Any
    most_repeated: Any
    guidance: Any
    top_k: Any
    min_frames: Any


class Past(NamedTuple):
    """What a choice knows of the frames before it: their number, [B], and the first tokens of the last, [B, K]."""

    generated: Int[Array, " B"]
    recent: Int[Array, "B K"]


Choose = Callable[[Float[Array, "B A"], int, Int[Array, " B"], Float[Array, "B D"]], Int[Array, " B"]]
"""(logits of the level's ids, level, the frame's first token, random numbers) → id of each row."""


def sample(rule: Rule, values: Values, ids: Int[Array, "Q A"], end: int, past: Past) -> Choose:
    """Returns a function that chooses a token among the ids of its level, the last of which is `end`.

    Only the first level may choose `end`, once `min_frames` frames are generated, and the whole frame is then `end`.
    `end` is drawn with its probability among all ids, if it is at least as likely as each code that is kept, and the
    other draws are among the codes that are kept: the renormalised share that `end` has among a few ids would stop
    most examples too early. Of a guided rule all arrays hold both halves of the rows.
    """
    if rule.guided:
        past = Past(*map(_first_half, past))

    def choose(logits: Array, level: int, first: Array, draws: Array) -> Array:
        codes, ending = jnp.split(logits.astype(jnp.float32), [logits.shape[-1] - 1], axis=-1)
        may_end = past.generated >= values.min_frames if level == 0 else jnp.zeros(len(logits), bool)
        ending = jnp.where(may_end, ending[:, 0] + values.end_bias, MASKED)
        if rule.greedy:
            ends, index = ending > codes.max(-1), _first_largest(codes)
        else:
            scaled, ending = codes / values.temperature, ending / values.temperature
            index, least = _draw(rule, values, scaled, draws[:, 1])
            chance = jax.nn.sigmoid(ending - jax.nn.logsumexp(scaled, axis=-1))
            ends = (draws[:, 0] < chance) & (ending >= least)
            if level == 0:
                index = _unless_repeated(values, scaled, ids[level], index, past.recent, draws[:, 2])
        token = ids[level, index]
        return jnp.where(ends if level == 0 else first == end, end, token)

    return guided(choose, values.guidance) if rule.guided else choose


def guided(choose: Choose, guidance: Any) -> Choose:
    """The same choice for rows whose second half are the first without conditions (arXiv 2207.12598): both halves take
    what is chosen by the logits that guidance makes of theirs."""

    def choose_for_both(logits: Array, level: int, first: Array, draws: Array) -> Array:
        conditional, unconditional = jnp.split(logits.astype(jnp.float32), 2)
        mixed = unconditional + guidance * (conditional - unconditional)
        return jnp.tile(choose(mixed, level, _first_half(first), _first_half(draws)), 2)

    return choose_for_both


def _first_half(rows: Array) -> Array:
    return rows[: len(rows) // 2]


def _first_largest(codes: Float[Array, "B A"]) -> Int[Array, " B"]:
    """`argmax`, out of two plain reductions, which a CPU vectorises as it does not an argmax."""
    places = jnp.arange(codes.shape[-1])
    return jnp.where(codes == codes.max(-1, keepdims=True), places, codes.shape[-1] - 1).min(-1)


def kept(values: Values, chances: Float[Array, "B A"], sums: Float[Array, "B A"]) -> Bool[Array, "B A"]:
    """Which codes may be drawn, given the falling chances of all, or of the most likely ones, and their sums."""
    enough = (sums - chances >= values.top_p) & (values.top_p < 1)
    return (jnp.arange(chances.shape[-1]) < values.top_k) & ~enough


def _draw(rule: Rule, values: Values, scaled: Array, draws: Array) -> tuple[Array, Array]:
    """The index drawn among the codes that are kept, and the least logit of those, -inf where all are."""
    codes = scaled.shape[-1]
    best, indices = jax.lax.top_k(scaled, min(FEW, codes) if rule.few else codes)
    chances = jnp.exp(best - jax.nn.logsumexp(scaled, axis=-1, keepdims=True))
    sums = jnp.cumsum(chances, axis=-1)
    among = kept(values, chances, sums)
    least = jnp.where(among.sum(-1) == codes, -jnp.inf, jnp.where(among, best, jnp.inf).min(-1))
    drawn = _index_at(draws, jnp.where(among, sums, 0))
    return jnp.take_along_axis(indices, drawn[:, None], axis=1)[:, 0], least


def _index_at(draws: Float[Array, " B"], sums: Float[Array, "B A"]) -> Int[Array, " B"]:
    """The index that a number from 0 to 1 falls on, given the sums of the chances; 0 stands for no chance."""
    most = sums.max(-1, keepdims=True)
    drawn = ((sums <= draws[:, None] * most) & (sums > 0)).sum(-1)
    return jnp.minimum(drawn, (sums > 0).sum(-1) - 1)  # sums are rounded


def _unless_repeated(
    values: Values, scaled: Array, ids: Array, index: Array, recent: Array, draws: Array
) -> Int[Array, " B"]:
    """`index`, or one drawn among all codes where it has too large a share of the recent frames (arXiv 2406.05370)."""
    again = (recent == ids[index][:, None]).mean(-1) > values.most_repeated

    def anew() -> Array:
        sums = jnp.cumsum(jax.nn.softmax(scaled, axis=-1), axis=-1)
        return jnp.where(again, _index_at(draws, sums), index)

    return jax.lax.cond(again.any(), anew, lambda: index)

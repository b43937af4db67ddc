"""The codec as the rest of the project sees it: waveform to codes and back, from a folder of weights and passport."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from uniaudio_jax.codec import chains, rvq, storage
from uniaudio_jax.codec.config import CodecConfig, FrameRateConfig, SeanetConfig
from uniaudio_jax.codec.conv import fold
from uniaudio_jax.codec.module import decode_vectors, encode_vectors, skeleton, with_params
from uniaudio_jax.codec.storage import SHIPPED as SHIPPED  # also importable from here
from uniaudio_jax.codec.storage import save_codec as save_codec
from uniaudio_jax.codec.streaming import Chain, Windowed

FRAMES_AT_ONCE = 4096  # in one call of a compiled program: rows x padded frames, unless one piece alone is longer
PIECE_FRAMES = 1500  # a longer row is cut into pieces with enough margin to change nothing


@functools.partial(jax.jit, static_argnums=0, static_argnames="levels")
def _encode_rows(
    config: CodecConfig, params: dict, codebooks: jax.Array, wav: jax.Array, frames: jax.Array, levels: int
):
    vectors = encode_vectors(with_params(config, params), wav, frames)
    return rvq.encode(vectors, codebooks[:levels]).astype(jnp.int16)


@functools.partial(jax.jit, static_argnums=0)
def _decode_rows(
    config: CodecConfig,
    params: dict,
    codebooks: jax.Array,
    codes: jax.Array,
    frames: jax.Array,
    levels: jax.Array | None,
):
    """`levels` of each row count; None means all that `codes` has."""
    if levels is None:
        return decode_vectors(with_params(config, params), rvq.decode(codes, codebooks), frames)
    entries = jnp.stack([book[codes[..., level]] for level, book in enumerate(codebooks)])
    used = jnp.arange(len(codebooks))[:, None] < levels[None]
    return decode_vectors(with_params(config, params), jnp.sum(entries * used[..., None, None], axis=0), frames)


@dataclasses.dataclass(frozen=True)
class _Piece:
    """Frames [start, stop) of a row, computed with the context [low, high)."""

    row: int
    start: int
    stop: int
    low: int
    high: int


def _bucket(count: int) -> int:
    """The next of 32, 48, 64, 96, 128, 192, …: a bounded set of compiled shapes, at most a third of padding."""
    size = 32
    while size < count:
        if size + size // 2 >= count:
            return size + size // 2
        size *= 2
    return size


def _pieces(lengths: Sequence[int], margin: int) -> list[_Piece]:
    pieces = []
    for row, length in enumerate(lengths):
        for start in range(0, length, PIECE_FRAMES):
            stop = min(length, start + PIECE_FRAMES)
            pieces.append(_Piece(row, start, stop, max(0, start - margin), min(length, stop + margin)))
    return pieces


def _batches(pieces: list[_Piece]) -> list[tuple[int, list[_Piece]]]:
    """(padded frames, pieces) groups of similar length, each at most `FRAMES_AT_ONCE` in total."""
    groups: dict[int, list[_Piece]] = {}
    for piece in pieces:
        groups.setdefault(_bucket(piece.high - piece.low), []).append(piece)
    batches = []
    for padded, members in sorted(groups.items()):
        rows = max(1, FRAMES_AT_ONCE // padded)
        batches += [(padded, members[i : i + rows]) for i in range(0, len(members), rows)]
    return batches


def _folded(config: CodecConfig, params: dict) -> tuple[CodecConfig, dict]:
    """Config and parameters for inference: weight norm multiplied in once and for all."""
    layout = config.layout
    if isinstance(layout, FrameRateConfig) or layout.norm != "weight_norm":
        return config, params
    return dataclasses.replace(config, layout=dataclasses.replace(layout, norm="folded")), fold(params)


class Codec:
    """Encodes waveforms to int16 codes, one row of Q codes per hop, and decodes them.

    A waveform is float [S], or [S, C] where the layout has C > 1 channels. Every length of at least one sample works,
    and `decode(encode(x), samples=len(x))` is as long as x.
    """

    def __init__(self, config: CodecConfig, params: dict, passport_extra: dict | None = None, weights_sha256: str = ""):
        self.config = config
        self.weights_sha256 = weights_sha256
        self.params = params
        self._extra = passport_extra or {}
        parts = {key: value for key, value in params.items() if key != "quantizer"}
        self._inference, parts = _folded(config, parts)
        self._parts = jax.tree.map(jnp.asarray, parts)
        self._books = jnp.asarray(params["quantizer"]["codebooks"], jnp.float32)
        self._encode_batch = functools.partial(_encode_rows, self._inference, self._parts, self._books)
        self._decode_batch = functools.partial(_decode_rows, self._inference, self._parts, self._books)

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def codebooks(self) -> int:
        """Number of stored codebooks."""
        return self.config.quantizer.codebooks

    @property
    def sample_rate_hz(self) -> int:
        return self.config.sample_rate_hz

    @property
    def hop_samples(self) -> int:
        return self.config.hop_samples

    @property
    def channels(self) -> int:
        return 1 if isinstance(self.config.layout, FrameRateConfig) else self.config.layout.channels

    def codebooks_of(self, kilobits_per_second: float) -> int:
        """The number of codebooks of a bandwidth. Raises ValueError when it is not that of 1 to all codebooks."""
        each = self.config.frame_rate_hz * math.log2(self.config.quantizer.entries) / 1000
        count = round(kilobits_per_second / each)
        if not 1 <= count <= self.codebooks or not math.isclose(count * each, kilobits_per_second, rel_tol=1e-3):
            raise ValueError(
                f"codec {self.name}: got a bandwidth of {kilobits_per_second:g} kbit/s, wanted a multiple "
                f"of {each:g} up to {each * self.codebooks:g}"
            )
        return count

    def passport(self) -> dict:
        """What identifies the codec in a dataset or checkpoint, with licence and training facts."""
        return {
            "codec": self.name,
            "weights_sha256": self.weights_sha256,
            "sample_rate_hz": self.sample_rate_hz,
            "hop_samples": self.hop_samples,
            "codebooks": self.codebooks,
            "entries": self.config.quantizer.entries,
            "layout": self.config.layout_kind,
            **self._extra,
        }

    def encode(self, wav: Float[np.ndarray, "..."], codebooks: int | None = None) -> Int[np.ndarray, "*B T Q"]:
        """int16 codes of one waveform, or of rows of equal length [B, S] or [B, S, C]; T = ceil(S / hop)."""
        wav = np.asarray(wav)
        alone = 1 if self.channels == 1 else 2
        if wav.ndim not in (alone, alone + 1):
            wanted = "[S] or [B, S] (mono)" if alone == 1 else f"[S, {self.channels}] or [B, S, {self.channels}]"
            raise ValueError(f"codec {self.name}: got a waveform of shape {wav.shape}, wanted {wanted}")
        codes = self.encode_many([wav] if wav.ndim == alone else list(wav), codebooks)
        return codes[0] if wav.ndim == alone else np.stack(codes)

    def decode(self, codes: Int[np.ndarray, "*B T Q"], samples: int | None = None) -> Float[np.ndarray, "..."]:
        """float32 waveform of T * hop samples, or its first `samples`."""
        codes = np.asarray(codes)
        if codes.ndim not in (2, 3):
            raise ValueError(f"codec {self.name}: got codes of shape {codes.shape}, wanted [T, Q] or [B, T, Q]")
        rows = [codes] if codes.ndim == 2 else list(codes)
        wavs = self.decode_many(rows, None if samples is None else [samples] * len(rows))
        return wavs[0] if codes.ndim == 2 else np.stack(wavs)

    def encoder_chain(self, codebooks: int | None = None) -> Chain:
        """Encodes a stream: push pieces of a waveform, get codes [T, Q] that equal those of the whole."""
        levels = self._checked_levels(codebooks)
        if isinstance(self.config.layout, SeanetConfig):
            self._check_streams()
            return chains.encoder_chain(self._inference, self._parts, self._books[:levels])
        margin = self.config.layout.margin_frames
        return Chain(
            [
                Windowed(
                    lambda wav: self.encode_many([wav], levels)[0],
                    left=margin,
                    right=margin,
                    start=1,
                    enter=self.hop_samples,
                )
            ]
        )

    def decoder_chain(self) -> Chain:
        """Decodes a stream: push codes [T, Q], get samples that equal those of the whole.

        A causal layout gives the samples of a frame as soon as it has it (after the first few, which the mirror at
        the start needs); another waits for the frames that its samples depend on.
        """
        if isinstance(self.config.layout, SeanetConfig):
            self._check_streams()
            return chains.decoder_chain(self._inference, self._parts, self._books)
        margin = self.config.layout.margin_frames
        return Chain(
            [
                Windowed(
                    lambda codes: self.decode_many([codes])[0],
                    left=margin,
                    right=margin,
                    start=1,
                    leave=self.hop_samples,
                )
            ]
        )

    @property
    def _has_streams(self) -> bool:
        layout = self.config.layout
        return isinstance(layout, FrameRateConfig) or layout.norm != "time_group_norm"

    def _check_streams(self) -> None:
        if not self._has_streams:
            raise ValueError(
                f"codec {self.name}: its norm looks at a whole segment, so it has no streams within one; "
                "give it segments (SegmentedCodec)"
            )

    def _checked_levels(self, codebooks: int | None) -> int:
        levels = self.codebooks if codebooks is None else codebooks
        if not 1 <= levels <= self.codebooks:
            raise ValueError(f"codec {self.name}: got codebooks={levels}, wanted 1 to {self.codebooks}")
        return levels

    def encode_many(
        self, wavs: Sequence[Float[np.ndarray, " S *C"]], codebooks: int | None = None
    ) -> list[Int[np.ndarray, "T Q"]]:
        """Codes of each waveform, computed in batches of similar length; a long one in pieces."""
        levels = self._checked_levels(codebooks)
        wavs = [self._checked_wav(wav) for wav in wavs]
        layout = self.config.layout
        if isinstance(layout, SeanetConfig):
            return self._equal_lengths(
                wavs,
                self.hop_samples,
                lambda *batch: self._encode_batch(*batch, levels=levels),
                lambda: self.encoder_chain(levels),
            )
        hop = self.hop_samples
        lengths = [-(-len(wav) // hop) for wav in wavs]

        def run(padded: int, pieces: list[_Piece], rows: int) -> np.ndarray:
            batch, frames = np.zeros((rows, padded * hop), np.float32), np.zeros(rows, np.int32)
            for i, piece in enumerate(pieces):
                part = wavs[piece.row][piece.low * hop : piece.high * hop]
                batch[i, : len(part)], frames[i] = part, piece.high - piece.low
            return np.asarray(self._encode_batch(batch, frames, levels=levels))

        return self._in_batches(layout, lengths, run, 1)

    def decode_many(
        self, codes: Sequence[Int[np.ndarray, "T Q"]], samples: Sequence[int] | None = None
    ) -> list[Float[np.ndarray, " S *C"]]:
        """Waveform of each item, cut to its entry of `samples` when given; computed in batches of similar length."""
        codes = [self._checked_codes(item) for item in codes]
        lengths, layout = [len(item) for item in codes], self.config.layout
        if samples is not None:
            self._check_samples(lengths, samples)
        if isinstance(layout, SeanetConfig):
            wavs = self._equal_lengths(codes, 1, lambda *batch: self._decode_batch(*batch, None), self.decoder_chain)
        else:

            def run(padded: int, pieces: list[_Piece], rows: int) -> np.ndarray:
                batch = np.zeros((rows, padded, self.codebooks), np.int32)
                levels, frames = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
                for i, piece in enumerate(pieces):
                    part = codes[piece.row][piece.low : piece.high]
                    batch[i, : len(part), : part.shape[1]] = part
                    levels[i], frames[i] = part.shape[1], len(part)
                return np.asarray(self._decode_batch(batch, frames, levels))

            wavs = self._in_batches(layout, lengths, run, self.hop_samples)
        return wavs if samples is None else [wav[:count] for wav, count in zip(wavs, samples, strict=True)]

    def _in_batches(
        self,
        layout: FrameRateConfig,
        lengths: list[int],
        run: Callable[[int, list[_Piece], int], np.ndarray],
        step: int,
    ) -> list:
        """Runs every piece and joins them per row; `step` results per frame."""
        parts: list[list[np.ndarray]] = [[] for _ in lengths]
        found: dict[tuple[int, int], np.ndarray] = {}
        for padded, pieces in _batches(_pieces(lengths, layout.margin_frames)):
            out = run(padded, pieces, 1 << (len(pieces) - 1).bit_length())
            for row, piece in zip(out, pieces, strict=False):
                found[piece.row, piece.start] = row[(piece.start - piece.low) * step : (piece.stop - piece.low) * step]
        for (row, _), part in sorted(found.items(), key=lambda item: item[0]):
            parts[row].append(part)
        return [part[0].copy() if len(part) == 1 else np.concatenate(part) for part in parts]

    def _equal_lengths(
        self,
        items: list[np.ndarray],
        per_frame: int,
        run: Callable[[np.ndarray, np.ndarray], jax.Array],
        chain: Callable[[], Chain],
    ) -> list:
        """Runs items of the same shape together, since this layout's padding depends on the length.

        Items longer than a piece (of `per_frame` entries a frame) go alone through a `chain`.
        """
        piece = PIECE_FRAMES * per_frame
        groups: dict[tuple[int, ...], list[int]] = {}
        out: dict[int, np.ndarray] = {}
        for i, item in enumerate(items):
            if self._has_streams and len(item) > piece:
                parts = (item[start : start + piece] for start in range(0, len(item), piece))
                out[i] = np.concatenate(list(chain().through(parts)))
            else:
                groups.setdefault(item.shape, []).append(i)
        for shape, members in groups.items():
            rows = max(1, FRAMES_AT_ONCE * per_frame // shape[0])
            for start in range(0, len(members), rows):
                now = members[start : start + rows]
                frames = np.zeros(len(now), np.int32)  # this layout does not look at them
                out.update(zip(now, np.asarray(run(np.stack([items[i] for i in now]), frames)), strict=True))
        return [out[i] for i in range(len(items))]

    def _checked_wav(self, wav: np.ndarray) -> np.ndarray:
        wav = np.asarray(wav)
        channels = () if self.channels == 1 else (self.channels,)
        if wav.shape[1:] != channels or not wav.size or not np.issubdtype(wav.dtype, np.floating):
            kind = "mono float audio" if not channels else f"float audio of shape [S, {self.channels}]"
            raise ValueError(
                f"codec {self.name}: got a waveform of shape {wav.shape} and type {wav.dtype}, wanted at least one "
                f"sample of {kind} in -1 … 1; read files with uniaudio_jax.audio.files.read_audio"
            )
        if not np.isfinite(wav).all():
            raise ValueError(f"codec {self.name}: got a waveform with NaN or infinite samples, wanted finite ones")
        return wav.astype(np.float32, copy=False)

    def _checked_codes(self, codes: np.ndarray) -> np.ndarray:
        codes = np.asarray(codes)
        if codes.ndim != 2 or not np.issubdtype(codes.dtype, np.integer) or not 1 <= codes.shape[1] <= self.codebooks:
            raise ValueError(
                f"codec {self.name}: got codes of shape {codes.shape} and type {codes.dtype}, "
                f"wanted integers [T, Q] with Q from 1 to {self.codebooks}"
            )
        entries = self.config.quantizer.entries
        if not len(codes) or codes.min() < 0 or codes.max() >= entries:
            seen = f"{codes.min()} to {codes.max()}" if len(codes) else "no frame"
            raise ValueError(f"codec {self.name}: got codes {seen}, wanted at least one frame of 0 to {entries - 1}")
        return codes

    def _check_samples(self, lengths: list[int], samples: Sequence[int]) -> None:
        if len(samples) != len(lengths):
            raise ValueError(f"codec {self.name}: got {len(samples)} sample counts for {len(lengths)} items")
        for frames, count in zip(lengths, samples, strict=True):
            if not 1 <= count <= frames * self.hop_samples:
                raise ValueError(
                    f"codec {self.name}: got samples={count} for {frames} frames, "
                    f"wanted 1 to {frames * self.hop_samples} ({self.hop_samples} a frame)"
                )


def open_codec(name_or_path: str | Path) -> Codec:
    """The shipped codec of that name, or the one in that folder. The weights must have the hash of the passport."""
    stored = storage.read_codec(name_or_path)
    storage.check_shapes(stored, nnx.to_pure_dict(skeleton(stored.config)[1]), name_or_path)
    return Codec(stored.config, stored.params, stored.extra, stored.weights_sha256)


def load_codec(name_or_path: str | Path) -> Codec:
    """As `open_codec`, but refuses a codec of overlapping segments: its frames are no stream."""
    codec = open_codec(name_or_path)
    if codec.config.segment is not None:
        raise ValueError(
            f"codec {str(name_or_path)!r}: it works on overlapping segments, wanted one stream of frames; "
            "use uniaudio_jax.codec.segments.load_segmented"
        )
    return codec

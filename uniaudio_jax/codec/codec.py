"""The codec as the rest of the project sees it: waveform to codes and back, from a folder of weights and passport."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from uniaudio_jax.clock import FrameClock
from uniaudio_jax.codec import storage
from uniaudio_jax.codec.config import CodecConfig
from uniaudio_jax.codec.layouts.streaming import Chain
from uniaudio_jax.codec.module import skeleton
from uniaudio_jax.codec.network import Network
from uniaudio_jax.codec.storage import SHIPPED as SHIPPED  # also importable from here
from uniaudio_jax.codec.storage import save_codec as save_codec

FRAMES_AT_ONCE = 4096  # in one call of a compiled program: rows x padded frames, unless a single row is longer
PIECE_FRAMES = 1500  # a longer recording is coded piece by piece, where the layout streams


class Codec:
    """Encodes waveforms to int16 codes, one row of Q codes per hop, and decodes them.

    A waveform is float [S], or [S, C] where the layout has C > 1 channels. Every length of at least one sample works,
    and `decode(encode(x), samples=len(x))` is as long as x.
    """

    def __init__(self, config: CodecConfig, params: dict, passport_extra: dict | None = None, weights_sha256: str = ""):
        self.config = config
        self.params = params
        self.weights_sha256 = weights_sha256
        self._extra = passport_extra or {}
        self._network = Network(config, params)

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def codebooks(self) -> int:
        """Number of stored codebooks."""
        return self.config.quantizer.codebooks

    @property
    def clock(self) -> FrameClock:
        return self.config.clock

    @property
    def sample_rate_hz(self) -> int:
        return self.config.sample_rate_hz

    @property
    def hop_samples(self) -> int:
        return self.config.hop_samples

    @property
    def channels(self) -> int:
        return self.config.layout.channels

    def codebooks_of(self, kilobits_per_second: float) -> int:
        """The number of codebooks of a bandwidth. Raises ValueError when it is not that of 1 to all codebooks."""
        each = self.clock.frame_rate_hz * math.log2(self.config.quantizer.entries) / 1000
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
            "layout": self.config.layout.kind,
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

    def encode_many(
        self, wavs: Sequence[Float[np.ndarray, " S *C"]], codebooks: int | None = None
    ) -> list[Int[np.ndarray, "T Q"]]:
        """Codes of each waveform, computed in batches of similar length; a long one in pieces."""
        levels = self._checked_levels(codebooks)
        return self._in_batches(
            [self._checked_wav(wav) for wav in wavs],
            self.hop_samples,
            lambda group: self._network.encode(group, levels),
            lambda: self._network.encoder_chain(levels),
        )

    def decode_many(
        self, codes: Sequence[Int[np.ndarray, "T Q"]], samples: Sequence[int] | None = None
    ) -> list[Float[np.ndarray, " S *C"]]:
        """Waveform of each item, cut to its entry of `samples` when given; computed in batches of similar length."""
        codes = [self._checked_codes(item) for item in codes]
        if samples is not None:
            self._check_samples([len(item) for item in codes], samples)
        wavs = self._in_batches(codes, 1, self._network.decode, self._network.decoder_chain)
        return wavs if samples is None else [wav[:count] for wav, count in zip(wavs, samples, strict=True)]

    def encoder_chain(self, codebooks: int | None = None) -> Chain:
        """Encodes a stream: push pieces of a waveform, get codes [T, Q] that equal those of the whole."""
        self._check_streams()
        return self._network.encoder_chain(self._checked_levels(codebooks))

    def decoder_chain(self) -> Chain:
        """Decodes a stream: push codes [T, Q], get samples that equal those of the whole.

        A causal layout returns a frame's samples as soon as it has the frame (after the first few, which the mirror at
        the start needs); another waits for the frames that the samples depend on.
        """
        self._check_streams()
        return self._network.decoder_chain()

    def _in_batches(
        self,
        items: list[np.ndarray],
        per_frame: int,
        run: Callable[[list[np.ndarray]], list[np.ndarray]],
        chain: Callable[[], Chain],
    ) -> list[np.ndarray]:
        """The results of `run` for all items, those of the same row length together; a long item goes through `chain`.

        per_frame: entries of an item that make a frame.
        """
        piece = PIECE_FRAMES * per_frame
        groups: dict[tuple[int, ...], list[int]] = {}
        results: dict[int, np.ndarray] = {}
        for number, item in enumerate(items):
            if self.config.layout.streams and len(item) > piece:
                pieces = (item[start : start + piece] for start in range(0, len(item), piece))
                results[number] = np.concatenate(list(chain().through(pieces)))
            else:
                length = self._network.row_length(len(item), per_frame)
                groups.setdefault((length, *item.shape[1:]), []).append(number)
        for (length, *_), members in groups.items():
            rows = max(1, FRAMES_AT_ONCE * per_frame // length)
            for start in range(0, len(members), rows):
                batch = members[start : start + rows]
                results.update(zip(batch, run([items[number] for number in batch]), strict=True))
        return [results[number] for number in range(len(items))]

    def _check_streams(self) -> None:
        if not self.config.layout.streams:
            raise ValueError(
                f"codec {self.name}: got a layout whose frames depend on the whole recording, wanted one that streams; "
                "code segments of it with uniaudio_jax.codec.segments.SegmentedCodec"
            )

    def _checked_levels(self, codebooks: int | None) -> int:
        levels = self.codebooks if codebooks is None else codebooks
        if not 1 <= levels <= self.codebooks:
            raise ValueError(f"codec {self.name}: got codebooks={levels}, wanted 1 to {self.codebooks}")
        return levels

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
            values = f"{codes.min()} to {codes.max()}" if len(codes) else "no frame"
            raise ValueError(f"codec {self.name}: got codes {values}, wanted at least one frame of 0 to {entries - 1}")
        return codes.astype(np.int32, copy=False)

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
    """As `open_codec`, but refuses a codec of overlapping segments, whose frames are not one stream."""
    codec = open_codec(name_or_path)
    if codec.config.segment is not None:
        raise ValueError(
            f"codec {str(name_or_path)!r}: it works on overlapping segments, wanted one stream of frames; "
            "use uniaudio_jax.codec.segments.load_segmented"
        )
    return codec

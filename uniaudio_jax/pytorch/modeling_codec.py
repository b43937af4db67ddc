"""The decoder of an audio codec in plain PyTorch: codes to a waveform.

This file needs PyTorch alone, and safetensors to read weights. Letters of shapes: B rows, T frames, Q codes of a frame,
D width, S samples, C channels.
"""

import json
import math
import wave
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST_LOG_MAGNITUDE = 5.0
LEAST_ENVELOPE = 1e-3


class ConvNextBlock(nn.Module):
    """Depthwise convolution, layer norm and a two-layer MLP around a scaled residual (arXiv 2201.03545)."""

    def __init__(self, width: int, hidden: int, kernel: int):
        super().__init__()
        self.pads = (kernel - 1) // 2, kernel // 2
        self.depthwise = nn.Conv1d(width, width, kernel, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.depthwise(F.pad(x.transpose(1, 2), self.pads)).transpose(1, 2)
        return x + self.down(F.gelu(self.up(self.norm(mixed)), approximate="tanh")) * self.scale


class FrameRateDecoder(nn.Module):
    """Vectors [B, T, D] to samples [B, S]: blocks at the frame rate, then an inverse short-time Fourier transform, in
    the manner of Vocos (arXiv 2306.00814)."""

    def __init__(self, vector_width: int, layout: dict[str, Any]):
        super().__init__()
        width, self.window_samples, self.hop_samples = (
            layout[name] for name in ("width", "window_samples", "hop_samples")
        )
        self.embed = nn.Linear(vector_width, width)
        self.norm_in, self.norm_out = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.blocks = nn.ModuleList(
            ConvNextBlock(width, layout["hidden"], layout["kernel"]) for _ in range(layout["decoder_blocks"])
        )
        self.head = nn.Linear(width, self.window_samples + 2)

    def forward(self, vectors: Tensor) -> Tensor:
        x = self.norm_in(self.embed(vectors))
        for block in self.blocks:
            x = block(x)
        log_magnitude, phase = self.head(self.norm_out(x)).chunk(2, dim=-1)
        spectrum = torch.polar(log_magnitude.clamp(max=LARGEST_LOG_MAGNITUDE).exp(), phase)
        window = torch.hann_window(self.window_samples, device=x.device)
        envelope = self.overlap_add(window.square().expand(1, x.shape[1], -1))
        envelope = torch.where(envelope > LEAST_ENVELOPE, envelope, 1.0)
        return self.overlap_add(torch.fft.irfft(spectrum) * window) / envelope

    def overlap_add(self, windows: Tensor) -> Tensor:
        """The sum [B, S] of windows [B, T, window] that are a hop apart, cut to the hops that they are centred on."""
        frames = windows.shape[1]
        total = (frames - 1) * self.hop_samples + self.window_samples
        summed = F.fold(windows.transpose(1, 2), (1, total), (1, self.window_samples), stride=(1, self.hop_samples))
        left = (self.window_samples - self.hop_samples) // 2
        return summed[:, 0, 0, left : left + frames * self.hop_samples]


def reflect_pad(x: Tensor, left: int, right: int) -> Tensor:
    """x [B, D, T] mirrored at its ends; one too short for that is lengthened by zeros first, as in EnCodec."""
    short = max(0, max(left, right) + 1 - x.shape[-1])
    padded = F.pad(F.pad(x, (0, short)), (left, right), mode="reflect")
    return padded[..., : padded.shape[-1] - short]


def norm(layout: dict[str, Any], width: int) -> nn.Module:
    """What a convolution's output [B, D, T] goes through."""
    return nn.GroupNorm(1, width) if layout["norm"] == "time_group_norm" else nn.Identity()


class Conv(nn.Conv1d):
    """A convolution of T frames to T frames; a causal one is padded on the left alone."""

    def __init__(self, inputs: int, outputs: int, kernel: int, layout: dict[str, Any]):
        super().__init__(inputs, outputs, kernel)
        self.right = 0 if layout["causal"] else (kernel - 1) // 2
        self.left = kernel - 1 - self.right
        self.norm = norm(layout, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(reflect_pad(x, self.left, self.right)))


class TransposedConv(nn.ConvTranspose1d):
    """A transposed convolution of T frames to T · ratio; a causal one is trimmed on the right alone."""

    def __init__(self, inputs: int, outputs: int, ratio: int, layout: dict[str, Any]):
        super().__init__(inputs, outputs, 2 * ratio, stride=ratio)
        self.ratio, self.start = ratio, 0 if layout["causal"] else ratio - ratio // 2
        self.norm = norm(layout, outputs)

    def forward(self, x: Tensor) -> Tensor:
        full = self.norm(super().forward(x))
        return full[..., self.start : self.start + x.shape[-1] * self.ratio]


class UpStage(nn.Module):
    """`ratio` times more frames of half the width, then a residual unit."""

    def __init__(self, width: int, ratio: int, layout: dict[str, Any]):
        super().__init__()
        inner = width // 2
        hidden = inner // layout["compress"]
        self.up = TransposedConv(width, inner, ratio, layout)
        self.narrow = Conv(inner, hidden, layout["residual_kernel"], layout)
        self.wide, self.shortcut = Conv(hidden, inner, 1, layout), Conv(inner, inner, 1, layout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(F.elu(x))
        return self.shortcut(x) + self.wide(F.elu(self.narrow(F.elu(x))))


class SeanetDecoder(nn.Module):
    """Vectors [B, T, D] to samples [B, S], or [B, S, C]: the decoder of SEANet with an LSTM (arXiv 2210.13438)."""

    def __init__(self, vector_width: int, layout: dict[str, Any]):
        super().__init__()
        ratios = layout["ratios"]
        width, self.hop_samples = layout["filters"] * 2 ** len(ratios), math.prod(ratios)
        self.first = Conv(vector_width, width, layout["kernel"], layout)
        self.lstm = nn.LSTM(width, width, layout["lstm_layers"], batch_first=True)
        self.stages = nn.ModuleList(UpStage(width // 2**stage, ratio, layout) for stage, ratio in enumerate(ratios))
        self.last = Conv(layout["filters"], layout["channels"], layout["kernel"], layout)

    def forward(self, vectors: Tensor) -> Tensor:
        x = self.first(vectors.transpose(1, 2)).transpose(1, 2)
        x = (x + self.lstm(x)[0]).transpose(1, 2)
        for stage in self.stages:
            x = stage(x)
        wav = self.last(F.elu(x)).transpose(1, 2)
        return wav[..., 0] if wav.shape[-1] == 1 else wav


DECODERS = {"frame_rate": FrameRateDecoder, "seanet": SeanetDecoder}


class Codec(nn.Module):
    """The codebooks of a residual quantiser, and the decoder behind it."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.sample_rate_hz: int = config["sample_rate_hz"]
        self.codebooks = nn.Parameter(torch.zeros(config["codebooks"], config["entries"], config["vector_width"]))
        self.decoder = DECODERS[config["kind"]](config["vector_width"], config["layout"])

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "Codec":
        """The codec of codec.json and codec.safetensors in a folder; on the CPU."""
        from safetensors.torch import load_file

        codec = cls(json.loads((Path(folder) / "codec.json").read_text(encoding="utf-8")))
        codec.load_state_dict(load_file(Path(folder) / "codec.safetensors"))
        return codec.eval()

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """The waveform [S] of codes [T, Q], or [B, S] of [B, T, Q]; T is at least 1. More channels come last."""
        if codes.ndim == 2:
            return self.decode(codes.unsqueeze(0))[0]
        levels = range(codes.shape[-1])
        return self.decoder(torch.stack([self.codebooks[level][codes[..., level]] for level in levels]).sum(0))


def write_wav(path: str | Path, wav: Tensor, sample_rate_hz: int) -> None:
    """Writes a waveform [S] or [S, C] as 16-bit PCM; what is beyond ±1 is cut off."""
    samples = (wav.clamp(-1, 1) * 32767).round().short()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if wav.ndim == 1 else wav.shape[1])
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes(b"".join(value.to_bytes(2, "little", signed=True) for value in samples.flatten().tolist()))

"""Laws of uniaudio_jax."""

from tests import typechecker as typechecker

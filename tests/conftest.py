"""Eight fake CPU devices and a compile cache for every test."""

import os
import sys
import types
import warnings

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax  # noqa: E402
import pytest  # noqa: E402

import uniaudio_jax  # noqa: E402, F401  (sets its XLA flag before the first backend starts)

jax.config.update("jax_compilation_cache_dir", os.path.join(os.path.dirname(__file__), "..", ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def pytest_addoption(parser):
    parser.addoption("--fuzz-seed", type=int, default=0, help="which spoilt inputs tests/test_fuzz.py draws")


@pytest.fixture(autouse=True, scope="module")
def compiled_for_one_module():
    """Forgets what a module compiled: kept, it comes to 6 GB in each process of the suite."""
    yield
    jax.clear_caches()


@pytest.fixture
def tpu_compiler(monkeypatch):
    """The TPU's compiler; what it compiles stays out of the compile cache, from which it could not be read back."""
    pytest.importorskip("libtpu", reason="needs the TPU compiler: bash launch/install.sh plan")
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    monkeypatch.setattr("jax._src.compilation_cache.put_executable_and_time", lambda *_: None)
    monkeypatch.setattr("jax._src.compilation_cache.get_executable_and_time", lambda *_: (None, None))


@pytest.fixture(scope="session")
def encodec_model():
    """The module `encodec.model` of the package; it imports torchaudio, which the parts used here do not need."""
    pytest.importorskip("torch")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
        return pytest.importorskip("encodec.model")

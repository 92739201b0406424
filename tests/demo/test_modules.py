"""Which kernel modules are taken, in which order, however they are packed."""

from __future__ import annotations

import gzip
import lzma
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.demo.test_elf import elf
from vmconnect.demo.modules import select_modules
from vmconnect.errors import MissingDependencyError, ResourceError

Pack = Callable[[bytes], bytes]


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


PACKED: dict[str, Pack] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    ".zst": zstd,
}


def kernel(
    tree: Path,
    depends: dict[str, list[str]],
    *,
    builtin: tuple[str, ...] = (),
    suffix: str = "",
) -> Path:
    """Write a ``lib/modules/VERSION`` with modules that depend on each other."""
    (tree / "kernel").mkdir(parents=True)
    lines = "".join(f"kernel/{name}.ko\n" for name in builtin)
    (tree / "modules.builtin").write_text(lines)
    for name, needed in depends.items():
        info = f"license=GPL\0depends={','.join(needed)}\0name={name}\0".encode()
        data = PACKED[suffix](elf({".modinfo": info}))
        (tree / f"kernel/{name}.ko{suffix}").write_bytes(data)
    return tree


@pytest.mark.parametrize("suffix", PACKED)
def test_what_is_needed_comes_first(tmp_path: Path, suffix: str) -> None:
    depends = {"virtio": [], "virtio_ring": ["virtio"], "virtio-pci": ["virtio_ring", "virtio"]}
    tree = kernel(tmp_path / "k", {**depends, "other": []}, suffix=suffix)
    chosen = select_modules(tree, ("virtio_pci",))
    assert [module.filename for module in chosen] == [
        "virtio.ko",
        "virtio_ring.ko",
        "virtio_pci.ko",
    ]
    assert all(module.data.startswith(b"\x7fELF") for module in chosen)


@settings(deadline=None, max_examples=60)
@given(
    graph=st.lists(st.sets(st.integers(0, 11)), min_size=1, max_size=12),
    wanted=st.sets(st.integers(0, 11), min_size=1, max_size=4),
    builtin=st.sets(st.integers(0, 11), max_size=3),
)
def test_every_order_is_one_that_loads(
    tmp_path_factory: pytest.TempPathFactory,
    graph: list[set[int]],
    wanted: set[int],
    builtin: set[int],
) -> None:
    # Each depends on earlier ones only: no cycles.
    depends = {
        f"m{index}": [f"m{each}" for each in sorted(needs) if each < index]
        for index, needs in enumerate(graph)
    }
    inside = tuple(f"m{each}" for each in builtin)
    tree = kernel(tmp_path_factory.mktemp("k") / "k", depends, builtin=inside)
    features = tuple(f"m{each % len(graph)}" for each in sorted(wanted))
    loaded: list[str] = []
    for module in select_modules(tree, features):
        assert set(depends[module.name]) <= {*loaded, *inside}
        assert module.name not in loaded
        loaded.append(module.name)
    assert set(features) <= {*loaded, *inside}
    assert set(loaded).isdisjoint(inside)


def test_modules_that_need_each_other_are_refused(tmp_path: Path) -> None:
    tree = kernel(tmp_path / "k", {"a": ["b"], "b": ["a"]})
    with pytest.raises(ResourceError, match="a and b need each other"):
        select_modules(tree, ("a",))


def test_a_missing_module_is_named_with_who_needs_it(tmp_path: Path) -> None:
    tree = kernel(tmp_path / "k", {"vsock": ["lost"]})
    with pytest.raises(ResourceError, match="no module lost, which vsock needs"):
        select_modules(tree, ("vsock",))


def test_an_optional_feature_may_be_missing(tmp_path: Path) -> None:
    tree = kernel(tmp_path / "k", {"virtio": []})
    assert [each.name for each in select_modules(tree, ("virtio_rng", "virtio"))] == ["virtio"]


def test_a_kernel_without_its_list_of_built_in_modules_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"cannot read modules\.builtin"):
        select_modules(tmp_path, ())


@pytest.mark.parametrize("suffix", PACKED)
@settings(deadline=None, max_examples=20)
@given(cut=st.integers(0, 400), noise=st.binary(max_size=40))
def test_a_damaged_module_is_refused(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, cut: int, noise: bytes
) -> None:
    tree = kernel(tmp_path_factory.mktemp("k") / "k", {"m": []}, suffix=suffix)
    path = tree / f"kernel/m.ko{suffix}"
    data = path.read_bytes()
    path.write_bytes(data[: cut % len(data)] + noise)
    try:
        chosen = select_modules(tree, ("m",))
    except ResourceError:
        return
    assert [each.name for each in chosen] == ["m"]  # the damage hit nothing that is read


def test_without_zstd_its_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = kernel(tmp_path / "k", {"m": []}, suffix=".zst")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="apt install zstd"):
        select_modules(tree, ("m",))

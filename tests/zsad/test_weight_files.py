"""Weight files of every kind: only tensors come out, and nothing in them is run."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zsad.weight_files import (
    WeightsError,
    as_state_dict,
    digest_of_values,
    misfits,
    read_weight_file,
    write_weight_file,
)

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(0.1)}


class Harmful:
    """Unpickling it touches a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(3, 2).half()
        self.register_buffer("number", torch.tensor(48))
        self.plain = torch.ones(3)  # neither a parameter nor a buffer
        self.factors = [1, 2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.part(x) * self.plain[0] * self.factors[0]


def archive(path: Path, attributes: bytes) -> Path:
    """Write a zip that looks like TorchScript, with attributes of one's own."""
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("model/data.pkl", attributes)
        out.writestr("model/constants.pkl", pickle.dumps(()))
        out.writestr("model/code/__torch__.py", "")
    return path


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.safetensors.pt"])
def test_the_kind_is_told_by_the_content_not_by_the_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for save in (lambda: save_file(TENSORS, path), lambda: torch.save(TENSORS, path)):
        save()
        read = read_weight_file(path)
        assert read.description is None
        assert misfits(read.content, TENSORS) is None
        assert all(torch.equal(read.content[n], t) for n, t in TENSORS.items())


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("traced", [True, False])
def test_torchscript_gives_its_parameters_and_buffers(tmp_path: Path, traced: bool) -> None:
    module, path = Small(), tmp_path / "w.pt"
    example = torch.ones(1, 3, dtype=torch.float16)
    script = torch.jit.trace(module, example) if traced else torch.jit.script(module)
    script.save(str(path))
    read, expected = read_weight_file(path).content, module.state_dict()
    assert set(read) == {"part.weight", "part.bias", "number"}
    assert all(torch.equal(read[n], t) and read[n].dtype == t.dtype for n, t in expected.items())


def test_pickled_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    ran, path = tmp_path / "ran", tmp_path / "w.pt"
    torch.save({"weight": Harmful(ran)}, path)
    with pytest.raises(WeightsError, match=r"w\.pt cannot be read as weights"):
        read_weight_file(path)
    path.write_bytes(pickle.dumps(Harmful(ran), protocol=2))
    with pytest.raises(WeightsError, match=r"w\.pt cannot be read as weights"):
        read_weight_file(path)
    assert not ran.exists()


def test_code_in_a_torchscript_archive_is_refused_and_does_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    path = archive(tmp_path / "w.pt", pickle.dumps(Harmful(ran)))
    with pytest.raises(WeightsError, match=r"w\.pt cannot be read.*UnpicklingError"):
        read_weight_file(path)
    assert not ran.exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["safetensors", "pickle"])
def test_a_file_cut_anywhere_is_an_error_that_names_it(
    tmp_path: Path, kind: str, share: float
) -> None:
    path, tensors = tmp_path / "cut.bin", {"w": torch.randn(50, 50)}
    save_file(tensors, path) if kind == "safetensors" else torch.save(tensors, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match=r"cut\.bin"):
        read_weight_file(path)


@pytest.mark.parametrize(
    "content", [b"<html>404: Not Found</html>", b"PK\x03\x04 no zip", bytes(100), b"12345678{"]
)
def test_foreign_bytes_are_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.pt"):
        read_weight_file(tmp_path / "w.pt")


def test_a_pickled_list_is_no_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="holds a list"):
        read_weight_file(tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="epoch is a int"):
        as_state_dict({"epoch": 3}, tmp_path / "w.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_value_that_is_no_number_is_an_error(value: float, dtype: torch.dtype) -> None:
    tensor = torch.full((100, 100), 60000.0, dtype=dtype)  # whose float16 sum would overflow
    assert as_state_dict({"w": tensor}, Path("w.pt"))
    tensor[50, 3] = value
    with pytest.raises(WeightsError, match=r"w\.pt is broken: w holds NaN or infinite"):
        as_state_dict({"w": tensor}, Path("w.pt"))


def described(path: Path, text: str) -> Path:
    save_file(TENSORS, path, metadata={"zsad": text})
    return path


@pytest.mark.parametrize("text", ["{", "[]", '"text"', "null", "{}"])
def test_a_broken_description_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(WeightsError, match=r"w\.safetensors is broken"):
        read_weight_file(described(tmp_path / "w.safetensors", text))


def test_a_later_format_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    path = described(tmp_path / "w.safetensors", json.dumps({"format": 99}))
    with pytest.raises(WeightsError, match="format 99, this zsad reads 1: update zsad"):
        read_weight_file(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_weight_file(path, TENSORS, {"method": "old"})
    with pytest.raises(TypeError):
        write_weight_file(path, TENSORS, {"method": object()})
    assert read_weight_file(path).description == {"format": 1, "method": "old"}
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_digest_is_of_values_whatever_holds_them() -> None:
    halves = {"a": torch.randn(3, 4).half(), "b": torch.randn(5).half()}
    digest = digest_of_values(halves)
    assert digest_of_values({n: t.float() for n, t in reversed(halves.items())}) == digest
    buffer = io.BytesIO()
    torch.save({"a": halves["a"].t().contiguous().t(), "b": halves["b"].double()}, buffer)
    buffer.seek(0)
    assert digest_of_values(torch.load(buffer)) == digest


@pytest.mark.parametrize("change", ["value", "shape", "name", "precision"])
def test_digest_changes_with_every_value_shape_and_name(change: str) -> None:
    tensors = {"a": torch.ones(2, 3)}
    changed = {
        "value": {"a": torch.ones(2, 3).index_fill(1, torch.tensor([2]), 2.0)},
        "shape": {"a": torch.ones(3, 2)},
        "name": {"b": torch.ones(2, 3)},
        "precision": {"a": torch.full((2, 3), 1 + 1e-6)},  # which float16 cannot tell from 1
    }
    assert digest_of_values(changed[change]) != digest_of_values(tensors)


def test_misfits_are_named_with_their_shapes_but_not_all_of_them() -> None:
    expected = {str(n): torch.zeros(2) for n in range(9)}
    assert misfits(expected, expected) is None
    changed = {"0": torch.zeros(2, 3), "new": torch.zeros(())} | {
        str(n): torch.zeros(2) for n in range(2, 9)
    }
    assert misfits(changed, expected) == "1 is missing, new is left over, 0 is 2×3 instead of 2"
    assert str(misfits({}, expected)).endswith("3 is missing, and 5 more")

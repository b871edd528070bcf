"""What is kept, what leaves, and what comes back from the file."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from pipeline.lm.state_memory import StateMemory

ROW = 4 * 3  # bytes of a token's state of three numbers


def states(length: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.arange(3.0 * length).view(length, 3).to(dtype)


def test_what_comes_first_stays() -> None:
    memory = StateMemory(5 * ROW)
    memory.keep([1, 2], states(2))
    memory.keep([3], states(1))
    assert not memory.full
    memory.keep([4, 5, 6], states(3))
    assert memory.full
    assert [key in memory for key in ((1, 2), (3,), (4, 5, 6))] == [True, True, False]


def test_once_full_it_stays_closed() -> None:
    """What is kept is a beginning of what was computed: it doesn't depend on how large the later ones are."""
    memory = StateMemory(2 * ROW)
    memory.keep([1], states(1))
    memory.keep([2, 3], states(2))
    memory.keep([4], states(1))
    assert (4,) not in memory


def test_what_is_kept_is_what_was_computed_first() -> None:
    memory = StateMemory(5 * ROW)
    memory.keep([1, 2], states(2))
    memory.keep([1, 2], states(2) + 1)
    assert_close(memory[1, 2], states(2))
    memory.keep([4, 5, 6], states(3))
    assert len(memory) == 2


def test_a_state_larger_than_the_budget_is_not_kept() -> None:
    memory = StateMemory(ROW)
    memory.keep([1, 2], states(2))
    assert len(memory) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_file_gives_back_what_did_not_fit(tmp_path: Path, dtype: torch.dtype) -> None:
    memory = StateMemory(ROW, tmp_path / "deep" / "folder")
    kept = {(n,) * n: states(n, dtype) + n for n in (2, 3, 4)}
    for key, value in kept.items():
        memory.keep(key, value)
    for key, value in reversed(kept.items()):
        assert key in memory
        assert_close(memory[key], value, atol=0, rtol=0)
        assert memory[key].dtype == dtype
    assert (9,) not in memory


def test_what_stands_in_the_file_is_not_written_again(tmp_path: Path) -> None:
    memory = StateMemory(ROW, tmp_path)
    for _ in range(3):
        memory.keep([1, 2], states(2))
    assert memory._file is not None
    assert memory._file.seek(0, 2) == 2 * ROW


def test_clear_forgets_both(tmp_path: Path) -> None:
    memory = StateMemory(ROW, tmp_path)
    memory.keep([3], states(1))
    memory.keep([1, 2], states(2))
    assert len(memory) == 2
    memory.clear()
    assert len(memory) == 0
    assert memory._file is not None
    assert memory._file.seek(0, 2) == 0
    memory.keep([1, 2], states(2))
    assert_close(memory[1, 2], states(2))


def test_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    memory = StateMemory(ROW, tmp_path)
    memory.keep([1, 2], states(2))
    assert list(tmp_path.iterdir()) == []

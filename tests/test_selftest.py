"""The selftest holds here, and sees what is broken."""

import json

import pytest
from torch import Tensor

from pipeline import selftest
from tests.conftest import Align


def test_it_holds_and_says_so(run_align: Align) -> None:
    code, out, err = run_align("selftest", "--device", "cpu", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert len(found) == 5
    assert all(row["holds"] for row in found.values())


def test_it_holds_in_bf16() -> None:
    assert all(check.holds for check in selftest.selftest("cpu", "bfloat16", visible=False))


@pytest.mark.parametrize("broken", ["kl_k1", "gae", "rollout_logprobs"])
def test_a_broken_formula_fails_its_check(monkeypatch: pytest.MonkeyPatch, run_align: Align, broken: str) -> None:
    whole = getattr(selftest, broken)

    def bent(*arguments: Tensor, **options: object) -> Tensor:
        result: Tensor = whole(*arguments, **options)
        return -result if broken == "kl_k1" else result + 1e-3

    monkeypatch.setattr(selftest, broken, bent)
    monkeypatch.setattr(selftest, "pipeline", lambda *_: 0.0)
    code, out, _ = run_align("selftest", "--device", "cpu")
    assert code == 1
    assert out.count("FAILS") == 1


def test_nan_never_holds() -> None:
    assert not selftest.Check("x", float("nan"), 1.0, 0.0).holds

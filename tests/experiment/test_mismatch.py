"""Why a checkpoint does not fit: the sentences name the settings and sizes that differ."""

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from shoal.components.spec import TeamSpec
from shoal.config import files
from shoal.config.settings import RunSettings
from shoal.experiment import ExperimentSettings, mismatch
from shoal.experiment.mismatch import difference, is_lack_of_memory, largest_widths, other_sizes

SPEC = TeamSpec(n_agents=2, n_actions=3, obs_dim=4, state_dim=5, episode_limit=6, discrete=True)


def settings(**changes: Any) -> RunSettings:
    raw = files.merge(files.read(files.FOLDER / "default.yaml"), files.load("envs", "matrix_game"))
    return RunSettings(files.merge(files.merge(raw, files.load("algs", "qmix")), changes), ExperimentSettings)


def content(spec: TeamSpec = SPEC, **changes: Any) -> dict[str, Any]:
    return {"config": settings(**changes).values, "spec": asdict(spec)}


def test_what_sizes_networks_is_named_and_the_rest_then_left_out() -> None:
    theirs = content(rnn_hidden_dim=128, buffer_size=1000)
    assert difference(theirs, settings(rnn_hidden_dim=32), SPEC) == "it was made with rnn_hidden_dim=128 (now 32)"
    assert (
        difference(content(buffer_size=1000), settings(buffer_size=2000), SPEC)
        == "it was made with buffer_size=1000 (now 2000)"
    )


def test_components_come_first_and_sizes_before_all() -> None:
    said = difference(content(SPEC, mixer="vdn"), settings(mixer="qmix", rnn_hidden_dim=32), replace(SPEC, n_agents=4))
    sizes, _, made = said.partition("; ")
    assert sizes == "the environment's sizes differ (n_agents 2 in the checkpoint, 4 here)"
    assert made.startswith("it was made with mixer=vdn (now qmix), ")
    assert "rnn_hidden_dim=" in made


def test_a_long_list_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mismatch, "MOST_NAMED", 1)
    said = difference(content(rnn_hidden_dim=128, hypernet_embed=8, mixing_embed_dim=4), settings(), SPEC)
    assert said.count("(now ") == 1
    assert said.endswith(" and 2 more")


def test_same_settings_and_sizes_leave_the_networks_themselves() -> None:
    assert difference(content(), settings(), SPEC) == "it holds other networks than the settings describe"


def test_seeds_and_lengths_are_no_cause() -> None:
    said = difference(content(seed=1, t_max=10), settings(seed=2, t_max=20), SPEC)
    assert said == "it holds other networks than the settings describe"


def test_other_sizes_looks_at_what_it_is_asked_to() -> None:
    theirs = content(replace(SPEC, episode_limit=9, obs_dim=7))
    assert other_sizes(theirs, SPEC, ("obs_dim", "n_agents")) == (
        "the environment's sizes differ (obs_dim 7 in the checkpoint, 4 here)"
    )
    assert "episode_limit 9 in the checkpoint, 6 here" in other_sizes(theirs, SPEC)
    assert other_sizes(theirs, SPEC, ("n_agents",)) == ""
    assert other_sizes({"config": {}}, SPEC) == ""  # written before checkpoints held sizes


def test_the_two_largest_widths_are_named_the_larger_first() -> None:
    run = settings(rnn_hidden_dim=5000, hypernet_embed=9000)
    assert largest_widths(run) == "hypernet_embed=9000 or rnn_hidden_dim=5000"


@pytest.mark.parametrize(
    ("error", "is_lack"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("size mismatch for fc1.weight"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_lack_of_memory_is_told_from_other_errors(error: BaseException, is_lack: bool) -> None:
    assert is_lack_of_memory(error) is is_lack


def test_torch_says_it_in_these_words() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62)
    assert is_lack_of_memory(caught.value)

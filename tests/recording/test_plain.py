"""What records hold of numpy's, torch's and Python's values."""

import json
from pathlib import Path

import numpy as np
import torch

from shoal.recording.plain import plain
from support.sacred_run import MOMENT


class TestPlain:
    def test_scalars_and_arrays(self):
        result = plain(
            {
                "tensor": torch.tensor([[1.0, 2.0]], requires_grad=True),
                "scalar": np.float32(1.5),
                "flag": np.bool_(True),
                "steps": np.int64(3),
                "array": np.arange(2),
                "path": Path("a/b"),
                "tuple": (1, None),
                "set": {"b", "a"},
                3: MOMENT,
            }
        )
        assert result == {
            "tensor": [[1.0, 2.0]],
            "scalar": 1.5,
            "flag": True,
            "steps": 3,
            "array": [0, 1],
            "path": "a/b",
            "tuple": [1, None],
            "set": ["a", "b"],
            "3": "2024-01-02T00:00:00",
        }
        assert json.loads(json.dumps(result)) == result
        assert [type(result[key]) for key in ("scalar", "flag", "steps")] == [float, bool, int]

    def test_what_bson_has_no_room_for_becomes_text(self):
        assert plain([2**63 - 1, 2**63, -(2**63)]) == [2**63 - 1, "9223372036854775808", -(2**63)]
        assert plain(object)

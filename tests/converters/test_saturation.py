"""What 7-bit weights are for: onnxruntime on an x86 processor without VNNI, emulated by qemu."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from converters import host, parity, quantising
from converters.quantising import Wanted
from converters.quiet import silenced
from tests.converters import small

QEMU = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
ANSWER = """
import sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 4
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
np.save(sys.argv[3], session.run(None, dict(np.load(sys.argv[2])))[0])
"""


def answered_without_vnni(file, rows, folder):
    """The first output as a Haswell gives it: AVX2, and 16-bit sums of pairs that saturate."""
    assert QEMU is not None
    model, given, made = (folder / name for name in ("model.onnx", "rows.npz", "made.npy"))
    model.write_bytes(file.data)
    np.savez(given, **rows)
    subprocess.run(
        [QEMU, "-cpu", "Haswell", sys.executable, "-c", ANSWER, model, given, made],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    return np.load(made)


@pytest.mark.skipif(QEMU is None, reason="needs qemu-user-static")
def test_without_vnni_only_a_reduced_range_stays_accurate(tmp_path):
    floats = small.from_corpus("windows", "onnx")
    rows = small.rows(floats, 16, seed=9)
    expected = host.runner(floats)(rows)["logits"]
    errors = {}
    for reduce_range in (False, True):
        with silenced():
            wanted = Wanted(scheme="int8 static", method="min/max", reduce_range=reduce_range)
            made = quantising.quantise(floats, small.rows(floats), wanted)
        errors[reduce_range] = parity.numeric_error(
            expected, answered_without_vnni(made, rows, tmp_path)
        )
    assert errors[True] < 0.03
    assert errors[False] > 3 * errors[True]

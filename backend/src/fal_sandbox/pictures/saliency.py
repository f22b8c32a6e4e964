"""Finds the subject of a photo with u2netp, U-2-Net's small network for salient objects, in the folder of that name.

It knows products from what lies around them where colours and edges alone do not: a white mug on white paper, a boot
that touches the frame. onnxruntime comes with the sandbox's extra on every platform that has a wheel of it; elsewhere
`look` answers None and `mask.py` goes by colours and edges.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fal_sandbox.pictures.arrays import Array, floats

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

WEIGHTS = Path(__file__).with_name("u2netp") / "u2netp.onnx"
SIDE = 320
"""The network was trained on squares of so many pixels."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, of red, green and blue."""
THREADS = 2

_making = threading.Lock()


def look(picture: Array) -> Array | None:
    """How surely each pixel of a BGR picture is the object: floats 0 to 1 of its size; None without onnxruntime."""
    session = _session()
    if session is None:
        return None
    square = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    values = floats(cv2.cvtColor(square, cv2.COLOR_BGR2RGB))
    values = (values / max(float(values.max()), 1.0) - floats(MEAN)) / floats(DEVIATION)
    (asked,), (first, *_) = session.get_inputs(), session.get_outputs()
    answer = session.run([first.name], {asked.name: values.transpose(2, 0, 1)[None]})
    height, width = picture.shape[:2]
    seen = cv2.resize(floats(answer[0])[0, 0], (width, height), interpolation=cv2.INTER_CUBIC)
    return floats(np.clip(seen, 0, 1))


def _session() -> InferenceSession | None:
    with _making:  # two photos at once must not both load it
        return _load()


@cache
def _load() -> InferenceSession | None:
    # It reports each use to its makers. On Windows a call turns that off; elsewhere only this variable does, if it is
    # set before the import (https://github.com/microsoft/onnxruntime/pull/27379).
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    except ImportError:
        return None
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    # Threads that wait by spinning take the processor from whatever else runs there.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(WEIGHTS), options, providers=["CPUExecutionProvider"])

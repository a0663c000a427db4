"""Counters of several workers are one sum, which never falls."""

from __future__ import annotations

import re
from pathlib import Path

from multimodal.serve.metrics import Metrics, series

LINE = re.compile(r'[a-z_]+(\{([a-z]+="(?:[^"\\\n]|\\.)*",?)*\})? [0-9.e+-]+')


def values(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(LINE.fullmatch(line) for line in lines), lines
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_whichever_worker_is_asked_tells_the_sum_and_a_new_one_goes_on(tmp_path: Path) -> None:
    first, second = Metrics(tmp_path, 0), Metrics(tmp_path, 1)
    for worker, seconds in ((first, 0.0001), (second, 0.3), (second, 99.0)):
        worker.answered("/api/search", "GET", 200, seconds)
        worker.count("uploads")
        worker.engine("photos", seconds)
    first.share()
    second.share()
    told = values(first.text({series("workers"): 2}))
    assert told == values(second.text({series("workers"): 2}))
    assert told['multimodal_requests_total{route="/api/search",method="GET",status="200"}'] == told["multimodal_uploads_total"] == 3
    assert told['multimodal_request_seconds_bucket{route="/api/search",le="0.001"}'] == 1
    assert told['multimodal_request_seconds_bucket{route="/api/search",le="+Inf"}'] == 3
    assert told['multimodal_engine_seconds_sum{store="photos"}'] == 99.3001
    again = Metrics(tmp_path, 1)  # the second one was killed
    again.count("uploads")
    assert values(again.text({}))["multimodal_uploads_total"] == 4


def test_a_store_s_name_cannot_break_the_text() -> None:
    metrics = Metrics()
    metrics.engine('a"\n} 7 \\', 0.1)
    assert len(values(metrics.text({series("generation", store='"\n'): 1}))) == 17

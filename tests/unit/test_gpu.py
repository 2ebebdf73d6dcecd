"""The benchmark for GPUs, tried small on the CPU, so that it works on the day there is a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import gpu
import pytest
import torch

SCRIPT = Path(gpu.__file__)
BYTES = {"counted", "predicted", "weights", "peak_allocated", "peak_reserved", "device_used", "allocated", "reserved"}
RATIOS = {"speed", "speed_same_precision", "speed_to_best_batch", "texts_per_second", "seconds", "memory_share"}
ONLY_CUDA = {"peak_allocated", "peak_reserved", "device_used", "memory", "total_memory", "driver", "compute_capability"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The script's one run: its process, and where its record is."""
    folder = tmp_path_factory.mktemp("gpu")
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    output = folder / "new" / "record.json"
    command = [sys.executable, SCRIPT, "--small", "--device", "cpu", "--output", output]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return SimpleNamespace(process=done, output=output)


@pytest.fixture(scope="module")
def sections(run):
    record = read(run.output)
    assert record["complete"] and record["small"] and record["checkpoint"] == "tests/data/oracle/checkpoint"
    return record["sections"]


def read(file):
    """A record; NaN and infinity are no figures."""
    return json.loads(file.read_text(encoding="utf-8"), parse_constant=pytest.fail)


def dicts(value):
    """Every dict of a record, at any depth."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from dicts(inner)


def figures(record, names):
    """(name, value) of all such figures that are there."""
    found = [(key, value) for one in dicts(record) for key, value in one.items() if key in names]
    return [(key, value) for key, value in found if isinstance(value, int | float)]


def test_every_section_is_there_and_none_failed(sections, run):
    assert list(sections) == ["hardware", "attention", "streaming", "speed", "peaks", "article"]
    assert not any("error" in found or found.get("wrong") for found in sections.values())
    for section in sections:
        assert f"== {section} ==" in run.process.stdout
    assert "100%" in run.process.stderr  # the bar


def test_no_place_of_this_machine_is_in_the_record(run):
    text = run.output.read_text(encoding="utf-8")
    assert str(gpu.ROOT) not in text and str(run.output.parent) not in text


def test_ratios_and_bytes_are_positive(sections):
    for names, least in ((BYTES, 8 + 12), (RATIOS, 12 * 5)):
        found = figures(sections, names)
        assert len(found) >= least
        for key, value in found:
            assert type(value) in (int, float) and value > 0, (key, value)
    assert all(type(value) is int for _, value in figures(sections, BYTES))


def test_what_only_cuda_has_is_null_with_a_reason(sections):
    assert not figures(sections, ONLY_CUDA)
    for one in dicts(sections):
        if one is sections["hardware"].get("lowered_by"):
            continue  # the variables that are not set
        reasons = [value for key, value in one.items() if "reason" in key]
        assert reasons or None not in one.values(), one
    assert sections["peaks"]["empty_cache"]["reason"] == sections["article"]["together"]["reason"] == gpu.NO_CUDA


def test_the_pipeline_and_ours_agree_in_fp32(sections):
    rows = sections["speed"]["rows"]
    assert {name.split(",")[0] for name in rows} == {
        f"{whose} {precision}" for whose in ("pipeline", "ours") for precision in gpu.DTYPES
    }
    assert rows[gpu.BASELINE]["speed"] == rows[gpu.BASELINE]["speed_same_precision"] == 1
    for name, row in rows.items():
        assert row["must_agree"] is ("fp32" in name)
        assert row["largest_difference"] <= (1e-5 if row["must_agree"] else 0.05), name
        if row["must_agree"]:
            assert row["same_answers"] == 1, name
    for precision, best in sections["speed"]["best_batch"].items():
        assert best.startswith(f"pipeline {precision}") and rows[best]["speed_to_best_batch"] == 1


def test_streamed_scores_are_those_of_resident_layers(sections):
    rows = sections["streaming"]["rows"]
    assert len(rows) == 3
    for name, row in rows.items():
        assert row["close"] and row["largest_difference"] <= (1e-6 if "fp32" in name else 1e-2), name
        assert row["same_answers"] == 1 and row["resident"]["seconds"] > 0 and row["streamed"]["seconds"] > 0


def test_bytes_in_fp32_are_those_predicted(sections):
    rows = sections["attention"]["rows"]
    assert len(rows) == 8
    for name, row in rows.items():
        assert row["predicted"] == row["counted"] if "fp32" in name else row["predicted"] is None, name
    for whose in ("BERT's own", "ours"):
        assert rows[f"{whose}, fp32, sdpa, 2 x 64"]["counted"] < rows[f"{whose}, fp32, eager, 2 x 64"]["counted"]


def test_the_articles_table_is_measured_and_what_is_not_has_a_reason(sections):
    article = sections["article"]
    assert list(article["rows"]) == ["original", "fp16", "dynamic batching", "sequence length"]
    for row in article["rows"].values():
        assert row["means"] and set(row["article"]) == {"memory", "speed", "accuracy"}
        for kind in ("headlines", "long_texts"):
            assert 0 <= row[f"same_{kind}"] <= 1 and 0 <= row[f"right_{kind}"] <= 1
    original = article["rows"]["original"]
    assert original["speed"] == original["same_headlines"] == original["same_long_texts"] == 1
    assert article["left_out"] and all(one["what"] and one["reason"] for one in article["left_out"])


def test_texts_that_are_repeated_are_others_for_the_classifier():
    texts = gpu.setting_for("cuda", small=False).texts
    assert len(texts) == len(set(texts)) == 72 and sorted(map(len, texts[:24])) == sorted(map(len, texts[48:]))


def test_a_speed_is_the_median_of_the_turns_against_the_baseline():
    seconds = {"baseline": [4.0, 4.0, 9.0], "ours": [2.0, 1.0, 3.0]}
    assert gpu.ratio(seconds, "ours", "baseline") == 3  # of 2, 4 and 3
    assert gpu.ratio(seconds, "baseline", "ours") == pytest.approx(1 / 3, abs=1e-3)


def test_scores_that_are_no_numbers_are_told_as_such():
    found, lost = ([{"sequence": "一", "labels": ["二"], "scores": [score]}] for score in (1.0, float("nan")))
    assert gpu.compared(found, found) == {"same_answers": 1, "largest_difference": 0}
    row = gpu.compared(lost, found)
    assert row["same_answers"] is row["largest_difference"] is None and "no numbers" in row["reason"]


def test_without_cuda_it_says_so_in_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for options in [], ["--small"], ["--device", "cuda"]:
        with pytest.raises(SystemExit) as ended:
            gpu.main(options)
        assert ended.value.code == (  # Python prints it, and the exit status is 1
            "torch finds no CUDA device here: to try the script on the CPU, give --device cpu --small."
        )


def broken(_):
    raise RuntimeError("the device is on fire")


def test_a_section_that_fails_loses_no_other(monkeypatch, tmp_path, capsys):
    output, before = tmp_path / "record.json", []

    def last(_):
        before.append(read(output))
        return {"rows": {"a way": {"speed": 2.0}}}

    monkeypatch.setattr(gpu, "SECTIONS", {"hardware": gpu.hardware, "speed": broken, "article": last})
    assert gpu.main(["--small", "--device", "cpu", "--output", str(output)]) == 1
    assert list(before[0]["sections"]) == ["hardware", "speed"] and not before[0]["complete"]  # written on the way
    found = read(output)
    assert found["complete"] and found["sections"]["speed"] == {"error": "RuntimeError: the device is on fire"}
    assert found["sections"]["hardware"]["torch"] == torch.__version__
    assert found["sections"]["article"]["rows"]["a way"]["speed"] == 2
    said = capsys.readouterr()
    assert "FAILED speed: RuntimeError: the device is on fire" in said.out and "broken" in said.err


def test_answers_that_differ_are_told_by_the_exit_status(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "SECTIONS", {"speed": lambda _: {"wrong": ["ours fp32: other best labels"]}})
    assert gpu.main(["--small", "--device", "cpu", "--output", str(tmp_path / "record.json")]) == 1
    assert "FAILED speed: ours fp32: other best labels" in capsys.readouterr().out


@pytest.fixture
def pretended_cuda(monkeypatch, empty_cache):
    """What the script asks CUDA for has an answer; the work is done on the CPU."""
    torch.set_num_threads(1)  # so small that threads would only wait for each other
    answers = {
        "memory_allocated": 1_000, "max_memory_allocated": 6_000, "memory_reserved": 3_000,
        "max_memory_reserved": 7_000, "mem_get_info": (10_000, 90_000), "synchronize": None, "empty_cache": None,
        "reset_peak_memory_stats": None, "get_device_name": "NVIDIA H100 80GB HBM3",
        "get_device_properties": SimpleNamespace(major=9, minor=0, total_memory=90_000, name="NVIDIA H100 80GB HBM3"),
    }  # fmt: skip
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(gpu.Setting, "on_cuda", True)
    monkeypatch.setattr(gpu.gc, "collect", lambda: 0)  # of all that pytest holds it takes long


def test_the_figures_of_cuda_are_recorded_where_they_belong(pretended_cuda, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu.machine, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(gpu, "article_answers", lambda _, chosen: {row: {} for row in chosen})
    monkeypatch.setattr(gpu, "DTYPES", {"fp32": torch.float32, "fp16": torch.float16})
    for section in ("streaming", "speed"):
        monkeypatch.delitem(gpu.SECTIONS, section)
    output = gpu.output_file("cuda")
    assert output == tmp_path / "records" / "gpu-nvidia-h100-80gb-hbm3.json"
    assert gpu.main(["--small", "--device", "cpu", "--output", str(output)]) == 0
    found = read(output)["sections"]
    assert (found["hardware"]["compute_capability"], found["hardware"]["total_memory"]) == ("9.0", 90_000)
    peak = {"allocated_before": 1_000, "peak_allocated": 6_000, "peak_reserved": 7_000, "device_used": 80_000}
    for row in [*found["peaks"]["rows"].values(), *found["article"]["rows"].values()]:
        assert peak.items() <= row.items() and "reason" not in row
    assert {"memory": 5_000, "memory_share": 1}.items() <= found["article"]["rows"]["fp16"].items()
    assert all(row["peak_reserved"] == 7_000 for row in found["attention"]["rows"].values())
    emptied = found["peaks"]["empty_cache"]
    assert emptied["before"] == emptied["after"] == {"allocated": 1_000, "reserved": 3_000, "device_used": 80_000}
    assert emptied["seconds_warm"] > 0 and emptied["seconds_after"] > 0

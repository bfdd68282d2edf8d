"""The labels of a model's outputs: a list or a mapping from the output's number."""

from __future__ import annotations

from pathlib import Path

import pytest

from capsule_edge.export.adopt.output_labels import read_output_labels
from capsule_edge.runtime.errors import InputError, UsageError


def read(tmp_path: Path, text: str):
    path = tmp_path / "labels.yaml"
    path.write_text(text, "utf-8")
    return read_output_labels(path)


def test_a_list_names_the_outputs_in_order(tmp_path):
    found = read(
        tmp_path, "- Normal\n- Foreign Bodies\n- {key: z_line, name: Z-Linie, role: landmark}\n- no\n"
    )
    assert [(label.key, label.name, label.role) for label in found] == [
        ("normal", "Normal", "normal"),
        ("foreign_body", "Foreign body", "finding"),
        ("z_line", "Z-Linie", "landmark"),
        ("no", "No", "finding"),
    ]


def test_a_mapping_numbers_the_outputs(tmp_path):
    found = read(
        tmp_path, "1: {key: polyp}\n0: {name: clean mucosa, role: normal}\n2: {key: bubbles, role: quality}\n"
    )
    assert [label.key for label in found] == ["clean_mucosa", "polyp", "bubbles"]
    assert [label.role for label in found] == ["normal", "finding", "quality"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither a list nor a mapping"),
        ("[]", "no label"),
        ("polyp", "neither a list nor a mapping"),
        ("a: normal\n", "neither a list nor a mapping"),
        ("0: normal\n2: polyp\n", "no label for output 1"),
        ("0: normal\n0: polyp\n", "twice"),
        ("0: normal\n00: polyp\n", "twice"),
        ("- normal\n- polyp\n- Polyp\n", "outputs 1 and 2 have the same key"),
        ("- normal\n- {key: polyp, rle: finding}\n", "output 1 is"),
        ("- normal\n- {key: polyp, role: lesion}\n", "role 'lesion'"),
        ("- normal\n- {}\n", "output 1 is"),
        ("- normal\n- [polyp]\n", "output 1 is"),
        ("- normal\n- {key: ''}\n", "no text"),
        ("- normal\n- '!!'\n", "no key follows"),
        ("- normal\n- {key: [a]}\n", "no text"),
        ("- normal\n  - x: [\n", "not YAML"),
        ("- &a [*a]\n", "."),
    ],
)
def test_a_fault_is_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "labels.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not YAML"):
        read_output_labels(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_output_labels(tmp_path)


def test_the_label_that_means_health_has_to_be_known(tmp_path):
    with pytest.raises(UsageError, match="no class is known as normal"):
        read(tmp_path, "- polyp\n- ulcer\n")
    with pytest.raises(UsageError, match="healthy may mean health"):
        read(tmp_path, "- healthy\n- ulcer\n")

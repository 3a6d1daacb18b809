"""Counting predictions: top-1 and top-5, mean IoU, agreement; against scores written out by hand."""

import numpy as np
import pytest

from polc_runtime.metrics.scores import (
    agreement,
    by_class,
    class_iou,
    count_pixels,
    count_top,
    pixel_figures,
    top_figures,
)


def test_top_figures_are_the_parts_of_pictures():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 12)).astype(np.float32)
    truth = rng.integers(0, 12, 200)
    counts = sum(count_top(row, np.array(label)) for row, label in zip(logits, truth, strict=True))
    ranked = [sorted(range(12), key=lambda c, row=row: -row[c]) for row in logits]
    for k in (1, 5):
        expected = sum(label in order[:k] for label, order in zip(truth, ranked, strict=True)) / 200
        assert top_figures(counts)[f"top-{k}"] == pytest.approx(expected)


def test_of_equal_logits_the_first_counts():
    flat = np.zeros(7, np.float32)
    assert [count_top(flat, np.array(label)).tolist() for label in (0, 4, 5)] == [
        [1, 1, 1],
        [1, 0, 1],
        [1, 0, 0],
    ]


def test_fewer_than_five_classes():
    assert count_top(np.array([0.0, 1.0], np.float32), np.array(0)).tolist() == [1, 0, 1]


def test_iou_is_intersection_over_union():
    truth = np.array([[0, 0, 1], [1, 1, -1]])
    predicted = np.array([[0, 1, 1], [1, 2, 2]])
    logits = np.eye(4, dtype=np.float32)[predicted].transpose(2, 0, 1)
    counts = count_pixels(logits, truth)
    assert counts.sum() == 5
    assert class_iou(counts) == [1 / 2, 2 / 4, 0.0, None]
    assert pixel_figures(counts) == {"miou": pytest.approx((0.5 + 0.5 + 0.0) / 3), "pixel-accuracy": 3 / 5}


def test_counts_of_pictures_add_up():
    """mIoU of two pictures is not the mean of theirs."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 5, 8, 6)).astype(np.float32)
    truth = rng.integers(0, 5, (2, 8, 6))
    total = count_pixels(logits[0], truth[0]) + count_pixels(logits[1], truth[1])
    predicted = logits.argmax(1)
    expected = [
        np.sum((predicted == c) & (truth == c)) / np.sum((predicted == c) | (truth == c)) for c in range(5)
    ]
    assert class_iou(total) == pytest.approx(expected)
    assert pixel_figures(total)["pixel-accuracy"] == pytest.approx(np.mean(predicted == truth))
    assert by_class(("a", "b", "c", "d", "e"), [total, total])["b"] == pytest.approx([expected[1]] * 2)


def test_a_picture_whose_pixels_are_all_ignored_has_no_figures():
    counts = count_pixels(np.ones((3, 2, 2), np.float32), np.full((2, 2), -1))
    assert pixel_figures(counts) == {"miou": None, "pixel-accuracy": None}


def test_agreement_is_of_classes_and_the_difference_of_logits():
    one = np.array([[[1.0, 0.0]], [[0.0, 3.0]]], np.float32)
    other = np.array([[[1.5, 4.0]], [[0.0, 3.0]]], np.float32)
    assert agreement(one, other) == {"agreement": 0.5, "difference": 4.0}
    assert agreement(one[:, 0, 0], other[:, 0, 0]) == {"agreement": 1.0, "difference": 0.5}

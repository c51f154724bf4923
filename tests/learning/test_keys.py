"""Keys are XXH64, the same for ever."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from learning.keys import BIAS_KEY, SEGMENTS, derived_key, name_key, number_text, segment_of, value_key, xxh64


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1))
def test_any_bytes_hash_as_the_reference_library_says(data: bytes, seed: int) -> None:
    """Our XXH64 equals the xxhash library's for every length and seed."""
    ours = xxh64(np.frombuffer(data, np.uint8), 0, len(data), np.uint64(seed))
    assert int(ours) == xxhash.xxh64_intdigest(data, seed)


def test_keys_written_down_years_ago_are_still_the_same() -> None:
    """A changed key would silently forget every stored weight, so three are pinned here."""
    assert int(name_key("price")) == xxhash.xxh64_intdigest(b"price")
    assert int(name_key("")) == 0xEF46DB3751D8E999
    assert int(value_key(name_key("city"), "Zürich")) == xxhash.xxh64_intdigest(
        "Zürich".encode(), xxhash.xxh64_intdigest(b"city")
    )


def test_a_slice_in_the_middle_of_a_buffer_hashes_like_the_bytes_alone() -> None:
    """Decoders hash texts where they lie in the message buffer."""
    buffer = np.frombuffer(b"...." + b"x" * 40 + b"....", np.uint8)
    assert int(xxh64(buffer, 4, 40, np.uint64(7))) == xxhash.xxh64_intdigest(b"x" * 40, 7)


@pytest.mark.parametrize(
    ("number", "text"), [(3, "3"), (3.0, "3"), (-0.0, "0"), (0.5, "0.5"), (1e22, "1e+22"), (-7, "-7")]
)
def test_a_number_used_as_a_category_has_one_text(number: float, text: str) -> None:
    """3 from JSON and 3.0 from a Parquet column are the same category."""
    assert number_text(number) == text


def test_bins_of_a_feature_have_keys_of_their_own() -> None:
    """No two bins of two neighbouring features share a key, nor do they meet the bias."""
    keys = [int(derived_key(name_key(name), b)) for name in ("a", "b") for b in range(-50, 50)]
    assert len({*keys, int(BIAS_KEY), int(name_key("a")), int(name_key("b"))}) == 203


def test_segments_are_filled_evenly() -> None:
    """100 k hashed names over 1024 segments: no segment is far from its share."""
    keys = np.array([name_key(f"f{i}") for i in range(100_000)], np.uint64)
    counts = np.bincount(segment_of(keys), minlength=SEGMENTS)
    assert len(counts) == SEGMENTS
    assert counts.min() > 50
    assert counts.max() < 160

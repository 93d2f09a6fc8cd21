"""Reads a histogram log with HdrHistogram's own package, and prints what it found of each tag as JSON.

With --hgrm TAG LOG FILE: checks every line of a percentile file against that tag, and prints how many there are.
"""

import json
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

HOUR = 3_600_000_000_000
NANOS_PER_MILLI = 1_000_000


def read(path):
    """All intervals of a tag, added up."""
    tags = {}
    reader = HistogramLogReader(path, HdrHistogram(1, HOUR, 3))
    while (interval := reader.get_next_interval_histogram()) is not None:
        tag = interval.get_tag()
        tags.setdefault(tag, HdrHistogram(1, HOUR, 3)).add(interval)
    return tags


def figures(histogram):
    percentiles = [0.0, 50.0, 90.0, 99.0, 99.9, 100.0]
    return {
        "count": histogram.get_total_count(),
        "max": histogram.get_max_value(),
        "percentiles": [histogram.get_value_at_percentile(at) for at in percentiles],
    }


def check_percentiles(histogram, path):
    """Each line says how many values there are up to its own, and that this is the share that it names, or more."""
    total = histogram.get_total_count()
    lines = 0
    for line in open(path):
        if line.startswith("#") or not line.strip() or "Value" in line:
            continue
        value, share, count = (float(field) for field in line.split()[:3])
        value = round(value * NANOS_PER_MILLI)
        upto = sum(
            histogram.get_count_at_index(at)
            for at in range(histogram.counts_len)
            if histogram.get_value_from_index(at) <= value
        )
        assert count == upto, line
        assert upto >= share * total - 1e-6, line
        assert histogram.get_highest_equivalent_value(value) == value, line
        lines += 1
    assert share == 1.0 and count == total, line
    return lines


if sys.argv[1] == "--hgrm":
    print(check_percentiles(read(sys.argv[3])[sys.argv[2]], sys.argv[4]))
else:
    print(json.dumps({tag: figures(values) for tag, values in read(sys.argv[1]).items()}))

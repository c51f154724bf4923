"""Sources and sinks: Kafka through kafka-python, files, and what is sent back."""

from __future__ import annotations

"""Messages (JSON, Arrow) to columnar batches, and the bad ones to dead letters."""

from __future__ import annotations

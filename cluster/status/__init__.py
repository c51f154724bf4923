"""Looking inside a job: the document that it writes of itself, who writes it, who reads it, and how it is shown."""

from __future__ import annotations

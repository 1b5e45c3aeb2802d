"""The Dagster code location: from exchange and chain to an approved model."""

import warnings

# Dagster still calls these two parameters beta, once per asset, whenever the graph is loaded. The
# graph rests on both: a range is one run, and a first day has no days before it.
for _parameter in ("backfill_policy", "allow_nonexistent_upstream_partitions"):
    warnings.filterwarnings("ignore", message=f"Parameter `{_parameter}` of")

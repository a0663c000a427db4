"""Run a trunk or an export over a shard set: feature columns (`columns`) and stores (`stores`)."""

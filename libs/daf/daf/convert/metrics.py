"""Metrics as messages."""

from __future__ import annotations

from daf.document_config import Aggregation
from daf_protos.statistics.v1 import metric_pb2
from daf_protos.statistics.v1.metric_pb2 import Metric

AGGREGATIONS: dict[Aggregation, metric_pb2.Aggregation.ValueType] = {
    "mean": metric_pb2.AGGREGATION_MEAN,
    "sum": metric_pb2.AGGREGATION_SUM,
    "min": metric_pb2.AGGREGATION_MINIMUM,
    "max": metric_pb2.AGGREGATION_MAXIMUM,
}


def metric_message(name: str, aggregation: Aggregation = "mean") -> Metric:
    """A metric: `reward`, or a statistic, and how the values of a policy's seats become one."""
    return Metric(name=name, aggregation=AGGREGATIONS[aggregation])

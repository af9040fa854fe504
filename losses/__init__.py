"""Losses: functions of tensors that return a scalar."""

from losses.census import census
from losses.flow import flow_smoothness
from losses.pixel import charbonnier, l1

__all__ = ["census", "charbonnier", "flow_smoothness", "l1"]

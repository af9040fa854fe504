"""Losses: functions of tensors that return a scalar."""

from losses.census import RADIUS as CENSUS_RADIUS
from losses.census import census
from losses.flow import flow_smoothness
from losses.pixel import charbonnier, l1

__all__ = ["CENSUS_RADIUS", "census", "charbonnier", "flow_smoothness", "l1"]

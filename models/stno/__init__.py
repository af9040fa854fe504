"""STNO: space-time video super-resolution with a neural operator."""

from models.stno.config import STNOConfig
from models.stno.network import STNO
from models.stno.official import stno_official

__all__ = ["STNO", "STNOConfig", "stno_official"]

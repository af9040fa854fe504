"""STNO: space-time video super-resolution with a neural operator."""

from models.stno.network import STNO, STNOConfig, STNOOutput
from models.stno.official import stno_official

__all__ = ["STNO", "STNOConfig", "STNOOutput", "stno_official"]

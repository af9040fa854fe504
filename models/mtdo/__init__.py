"""MTDO: super-resolution of the centre frame of a window of satellite video frames."""

from models.mtdo.config import HATConfig, MTDOConfig
from models.mtdo.network import MTDO
from models.mtdo.official import mtdo_official
from models.mtdo.streaming import MTDOStream

__all__ = ["MTDO", "HATConfig", "MTDOConfig", "MTDOStream", "mtdo_official"]

"""The cost of a network at a given size, and refusal of impossible sizes."""

import pytest
import torch

import models
from engine.compare.cost import cost_table, measure, parse_size, report_cost, write_cost
from engine.config import config_from_mapping, config_to_mapping
from engine.report.cost import gmac_per_frame
from errors import InputError
from tests.engine.conftest import tiny_mapping


def test_cost_at_the_requested_size(tmp_path, capsys) -> None:
    config = config_from_mapping(tiny_mapping(tmp_path))
    row = measure(config_to_mapping(config), 24, 32)
    network = models.build(config.network).eval()
    assert row["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert row["gmac_per_frame"] == pytest.approx(gmac_per_frame(network, 24, 32))
    assert row["gmac_per_frame"] == pytest.approx(gmac_per_frame(network, 24, 24) * 32 / 24, rel=0.5)
    assert row["seconds_per_frame"] > 0 and row["peak_memory_mb"] > 10
    assert row["threads"] == torch.get_num_threads()
    write_cost([{"config": "tiny.yaml", **row}], 32, 24, tmp_path)
    assert "| tiny (MTDO) |" in (tmp_path / "cost.md").read_text()
    assert r"\toprule" in (tmp_path / "cost.tex").read_text()
    assert cost_table([row], 32, 24).title in capsys.readouterr().out


@pytest.mark.parametrize("text", ["320", "8x8", "99999x99", "axb", "-3x20", "5000x20"])
def test_impossible_sizes_are_refused_in_one_line(text) -> None:
    with pytest.raises(InputError, match="such as 320x180"):
        parse_size(text)
    with pytest.raises(InputError, match="name the config files"):
        report_cost("32x24", None, [])

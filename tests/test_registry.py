"""The registered hosts: each names the MMDetection head that it stands for, and no list has to."""

import subprocess
import sys

import pytest
from mmdet.models import dense_heads as stock
from mmdet.registry import MODELS as MMDET_MODELS

from mmdet_gfl.models.dense_heads import ATSSGFLHead, DenseGFLMixin
from mmdet_gfl.models.dense_heads.gfl_head import GFLHead
from mmdet_gfl.registry import MODELS, host_names, hosts_of_stock_heads, registered_hosts

#: Host, the MMDetection head that it stands for, and the quality with which it computes the same.
HOSTS = {
    'ATSSGFLHead': (stock.ATSSHead, 'CenternessBranch'),
    'FCOSGFLHead': (stock.FCOSHead, 'CenternessBranch'),
    'FoveaGFLHead': (stock.FoveaHead, 'NoQuality'),
    'GFLHead': (stock.GFLHead, 'JointQuality'),
    'RetinaGFLHead': (stock.RetinaHead, 'NoQuality'),
    'SSDGFLHead': (stock.SSDHead, 'NoQuality'),
    'RTMDetGFLHead': (stock.RTMDetHead, 'AssignedQuality'),
    'RTMDetSepBNGFLHead': (stock.RTMDetSepBNHead, 'AssignedQuality'),
}


def test_hosts_by_name():
    hosts = registered_hosts()
    assert set(HOSTS) <= set(hosts) and list(hosts) == sorted(hosts)
    for name, host in hosts.items():
        assert issubclass(host, DenseGFLMixin) and MMDET_MODELS.get(f'mmdet_gfl.{name}') is host
        assert isinstance(host.stock_head, type) and issubclass(host.stock_head, stock.base_dense_head.BaseDenseHead)
        assert host.baseline_quality in MODELS and host.default_quality in MODELS
    assert 'QualityFocalLoss' not in hosts and 'GeneralBox' not in hosts


@pytest.mark.parametrize('name', HOSTS)
def test_stock_head_and_baseline_quality(name):
    host = registered_hosts()[name]
    assert (host.stock_head, host.baseline_quality) == HOSTS[name]
    assert hosts_of_stock_heads()[host.stock_head] is host


def test_a_host_with_the_same_stock_head_does_not_replace_the_first(monkeypatch):
    class OwnGFLHead(GFLHead):
        """Inherits its stock head."""

    monkeypatch.setitem(MODELS.module_dict, 'AGFLHead', OwnGFLHead)  # before GFLHead in the alphabet
    assert registered_hosts()['AGFLHead'] is OwnGFLHead
    assert hosts_of_stock_heads()[stock.GFLHead] is GFLHead


def test_a_users_host_is_found_where_it_is_registered(monkeypatch):
    class OwnHost(ATSSGFLHead):
        """A host for another head."""

        stock_head = stock.PAAHead

    monkeypatch.setitem(MODELS.module_dict, 'OwnHost', OwnHost)
    assert registered_hosts()['OwnHost'] is OwnHost and hosts_of_stock_heads()[stock.PAAHead] is OwnHost
    assert 'mmdet_gfl.OwnHost' in host_names().split(', ')


def test_hosts_are_found_before_any_part_is_imported():
    code = 'from mmdet_gfl.registry import registered_hosts; print(*registered_hosts())'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert set(HOSTS) <= set(result.stdout.split())

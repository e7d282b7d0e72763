"""Refusals of a command line before torch is imported."""

import argparse

import pytest

from mmdet_gfl.benchmark import commands
from mmdet_gfl.benchmark.rows import RowError
from mmdet_gfl.engine.errors import UserError


@pytest.mark.parametrize(
    'given, message',
    [
        (dict(seeds=[0, -1]), '--seeds -1: give an integer from 0 up'),
        (dict(seeds=[0, 1, 0]), '--seeds: 0 is given 2 times; each seed counts once'),
        (dict(jobs=0), '--jobs 0: give an integer from 1 up'),
        (dict(gpus=0), '--gpus 0: give an integer from 1 up'),
        (dict(batch_size=-2), '--batch-size -2: give an integer from 1 up'),
        (dict(train_images=0), '--train-images 0: give an integer from 1 up'),
        (dict(epochs=0), '--epochs 0: give an integer from 1 up'),
    ],
)
def test_numbers_that_mean_nothing(given, message):
    fine = dict(seeds=[0], jobs=1, gpus=None, batch_size=None)
    with pytest.raises(RowError) as said:
        commands.check_arguments(argparse.Namespace(**fine | given))
    assert str(said.value) == message


@pytest.mark.parametrize('name, flag', [('mini', '--mini'), ('cfg_options', '--cfg-options')])
def test_options_without_a_value(name, flag):
    with pytest.raises(UserError, match=f'^{flag} size: write KEY=VALUE'):
        commands.check_arguments(argparse.Namespace(**{name: ['lr=1', 'size']}))


def test_values_that_are_accepted():
    commands.check_arguments(argparse.Namespace(command='list'))
    commands.check_arguments(argparse.Namespace(seeds=None))  # of status: all there are
    commands.check_arguments(
        argparse.Namespace(seeds=[0, 7], jobs=1, gpus=1, batch_size=1, mini=['lr=1'], cfg_options=None)
    )

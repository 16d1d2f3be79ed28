"""Several processes train one world: they hold the same weights, and those of a single process."""

import multiprocessing
import os
import socket

import pytest
import torch
from torch import distributed

from simservice.errors import ConfigError
from simservice.training.gang import ALONE, ProcessGang
from simservice.worlds.world import Batch


def batch_of(rows):
    numbers = torch.arange(rows)
    observation = {"observation": numbers[:, None, None].expand(rows, 2, 3).float()}
    step = numbers[:, None].float()
    return Batch(observation, {"action": numbers[:, None]}, step, step > 2, torch.ones(rows, 2) > 0, step >= 0)


def member(rank, size, port, answers):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=size)
    gang = ProcessGang()
    own = gang.part(batch_of(8), groups=2)
    weight = torch.nn.Parameter(torch.zeros(3))
    unused = torch.nn.Parameter(torch.zeros(2))
    loss = (weight * own.reward.mean()).sum() + own.reward.mean()
    torch.autograd.backward(loss)
    mean = gang.average([weight, unused], loss.detach())
    try:
        gang.part(batch_of(9), groups=1)
        refusal = ""
    except ConfigError as error:
        refusal = str(error)
    found = (own.reward[:, 0].tolist(), mean, weight.grad.tolist(), unused.grad, gang.agree(float(rank)), refusal)
    answers.put((rank, found))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two():
    """What two members found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    members = [context.Process(target=member, args=(rank, 2, port, answers)) for rank in range(2)]
    for process in members:
        process.start()
    found = dict(answers.get(timeout=60) for _ in members)
    for process in members:
        process.join(60)
    return found


def test_every_row_belongs_to_one_member_and_every_group_to_all(two):
    """A group is four rows here: 0 to 3 and 4 to 7."""
    assert two[0][0] == [0, 1, 4, 5] and two[1][0] == [2, 3, 6, 7]


def test_gradients_and_losses_become_those_of_the_whole_batch(two):
    for _, mean, gradient, unused, _, _ in two.values():
        assert mean == pytest.approx(3.5) and gradient == pytest.approx([3.5] * 3)
        assert unused is None  # what took no part stays untouched by weight decay


def test_all_members_decide_by_the_first_ones_number(two):
    assert [found[4] for found in two.values()] == [0.0, 0.0]


def test_a_batch_that_cannot_be_dealt_out_evenly_is_refused(two):
    assert all("9 rows" in found[5] for found in two.values())


def test_alone_all_of_the_batch_is_ones_own():
    batch = batch_of(4)
    assert ALONE.part(batch, 1) is batch and ALONE.agree(2.0) == 2.0 and ALONE.rank == 0

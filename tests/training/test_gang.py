"""Several processes train one world: they hold the same weights, and those of a single process."""

import multiprocessing
import os
import socket
from types import SimpleNamespace

import pytest
import torch
from torch import distributed

from simservice.errors import ConfigError
from simservice.training.gang import ALONE, ProcessGang
from simservice.training.optimise import _update
from simservice.training.step import Step
from simservice.worlds.nets.quantize import Codebook
from simservice.worlds.world import Batch, Phase


def batch_of(rows):
    numbers = torch.arange(rows)
    observation = {"observation": numbers[:, None, None].expand(rows, 2, 3).float()}
    step = numbers[:, None].float()
    return Batch(observation, {"action": numbers[:, None]}, step, step > 2, torch.ones(rows, 2) > 0, step >= 0)


class Noting(torch.nn.Module):
    """What it learns from a batch is partly in buffers, as a codebook's entries are."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.book, self.scale = Codebook(4, 3), torch.nn.Parameter(torch.ones(()))
        self.register_buffer("seen", torch.zeros(32, dtype=torch.bool))
        self.register_buffer("last", torch.zeros(()))

    def loss(self, batch, draws, phase):
        rows = batch.observation["observation"][:, 0] * self.scale
        self.seen[batch.reward[:, 0].long()] = True
        self.last.copy_(batch.reward[-1, 0])
        return self.book(rows)[2], {}


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
    world, before = Noting(), Noting().book.entries.clone()
    run = SimpleNamespace(
        world=world, gang=gang, loader=SimpleNamespace(batch=lambda *_: batch_of(32)), device="cpu",
        seed=0, position=SimpleNamespace(place=0, update=0),
    )  # fmt: skip
    phase = Phase(name="book", updates=3, batch_size=32, segment_length=1, learning_rate=0.1)
    optimizer = torch.optim.SGD(world.parameters(), lr=0.1)
    step = Step(world, phase, optimizer, world.loss, gang, torch.device("cpu"), "float32")
    for run.position.update in range(3):
        _update(run, phase, optimizer, step)
    noted = (
        world.book.entries.tolist(),
        not torch.equal(world.book.entries, before),
        world.seen.tolist(),
        float(world.last),
    )
    found = (
        own.reward[:, 0].tolist(),
        float(mean),
        weight.grad.tolist(),
        unused.grad,
        gang.agree(float(rank)),
        refusal,
        noted,
    )
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
    for _, mean, gradient, unused, *_ in two.values():
        assert mean == pytest.approx(3.5) and gradient == pytest.approx([3.5] * 3)
        assert unused is None  # what took no part stays untouched by weight decay


def test_all_members_decide_by_the_first_ones_number(two):
    assert [found[4] for found in two.values()] == [0.0, 0.0]


def test_what_a_loss_notes_of_its_rows_is_the_first_members_everywhere(two):
    (entries, moved, seen, last), (others, _, seen_by_others, last_of_others) = (two[rank][6] for rank in range(2))
    assert moved and entries == others
    assert seen == seen_by_others == [True] * 16 + [False] * 16 and last == last_of_others == 15


def test_a_batch_that_cannot_be_dealt_out_evenly_is_refused(two):
    assert all("9 rows" in found[5] for found in two.values())


def test_alone_all_of_the_batch_is_ones_own():
    batch = batch_of(4)
    assert ALONE.part(batch, 1) is batch and ALONE.agree(2.0) == 2.0 and ALONE.rank == 0

"""What clients asked and were answered, and whether it can have come from steps done exactly once and in order."""

from dataclasses import dataclass, field

from counter_lanes import CounterLanes, same


@dataclass
class CounterHistory:
    """One session's requests by sequence number, with every answer that its client ever got."""

    commands: dict = field(default_factory=dict)
    answers: dict = field(default_factory=dict)

    def asked(self, sequence, command):
        """The command of a number is settled when it is first answered; until then it may change."""
        if sequence not in self.answers:
            self.commands[sequence] = command

    def answered(self, sequence, result):
        """An acknowledged request; a repeat adds another answer."""
        self.answers.setdefault(sequence, []).append(result)

    async def check(self, num_envs, mode, seeds, lanes=CounterLanes):
        """No acknowledged step lost, repeated or reordered: all answers are those of an undisturbed session."""
        assert sorted(self.answers) == list(range(1, len(self.answers) + 1)), "a number was skipped"
        engine = lanes()
        held = engine.allocate(num_envs, mode, seeds)
        for sequence in sorted(self.answers):
            command = self.commands[sequence]
            expected = await (engine.step if hasattr(command, "action") else engine.reset)(held, command)
            for answer in self.answers[sequence]:
                assert same(answer, expected), f"request {sequence} got another answer than in an undisturbed session"

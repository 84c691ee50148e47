"""What a plan looks like from above: steps by group, and how much of a batch would be padding."""

from dataclasses import dataclass

from griffon_train.data.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupReport:
    """One group in one epoch.

    Attributes:
        steps: that belong to the epoch.
        tokens: of all its samples.
        padded_tokens: the same with every sample as long as the longest of its batch.
    """

    steps: int = 0
    tokens: int = 0
    padded_tokens: int = 0

    @property
    def waste(self) -> float:
        """The share of a batch that is padding."""
        return 1 - self.tokens / self.padded_tokens if self.padded_tokens else 0.0


def epoch_report(plan: Plan, epoch: int) -> dict[str, GroupReport]:
    """The groups of an epoch, with a whole batch padded to its longest sample."""
    found = dict.fromkeys(plan.groups, GroupReport())
    for number in range(plan.first_step(epoch), plan.first_step(epoch + 1)):
        step = plan.step(number)
        before = found[step.group]
        found[step.group] = GroupReport(
            steps=before.steps + 1,
            tokens=before.tokens + int(step.lengths.sum()),
            padded_tokens=before.padded_tokens + int(step.lengths.max()) * plan.global_batch,
        )
    return found


def merge_reports(groups: dict[str, GroupReport]) -> GroupReport:
    """All groups as one."""
    return GroupReport(
        steps=sum(group.steps for group in groups.values()),
        tokens=sum(group.tokens for group in groups.values()),
        padded_tokens=sum(group.padded_tokens for group in groups.values()),
    )

"""An overview of a plan: steps per group, and the share of padding in a batch."""

from dataclasses import dataclass

from griffon_train.data.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupReport:
    """One group in one epoch.

    Attributes:
        steps: number of steps in the epoch.
        tokens: tokens of all its samples.
        padded_tokens: tokens if every sample is padded to the longest of its global batch.
    """

    steps: int = 0
    tokens: int = 0
    padded_tokens: int = 0

    @property
    def waste(self) -> float:
        """The share of padding in a batch, from 0 to 1."""
        return 1 - self.tokens / self.padded_tokens if self.padded_tokens else 0.0


def epoch_report(plan: Plan, epoch: int) -> dict[str, GroupReport]:
    """Report on the groups of an epoch, with every global batch padded to its longest sample."""
    reports = dict.fromkeys(plan.groups, GroupReport())
    for number in range(plan.first_step(epoch), plan.first_step(epoch + 1)):
        step = plan.step(number)
        before = reports[step.group]
        reports[step.group] = GroupReport(
            steps=before.steps + 1,
            tokens=before.tokens + int(step.lengths.sum()),
            padded_tokens=before.padded_tokens + int(step.lengths.max()) * plan.global_batch,
        )
    return reports


def merge_reports(groups: dict[str, GroupReport]) -> GroupReport:
    """Merge the reports of all groups into one."""
    return GroupReport(
        steps=sum(group.steps for group in groups.values()),
        tokens=sum(group.tokens for group in groups.values()),
        padded_tokens=sum(group.padded_tokens for group in groups.values()),
    )

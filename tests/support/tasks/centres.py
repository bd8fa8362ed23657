"""Recognises people by a softmax over class centres that are cut over the ranks; judged by verification."""

from hpc.evaluation.verification import Verification
from tests.support.centres import Centres


class Recogniser(Centres):
    metric = ("verification/eer", "min")
    evaluators = {"verification": Verification}  # noqa: RUF012

    def predict(self, nets, batch):
        return {"embedding": nets["net"](batch.images["image"])}


def build(config):
    return Recogniser(config)

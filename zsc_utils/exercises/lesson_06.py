"""What lesson 06 asks: what all levers give together, how a claim is judged, which scores can be trusted."""

import numpy as np

from zsc_utils.exercises import Guess, Wrong, exercise, filled

GUESSES: list[Guess] = [
    Guess("together-memory", "percent", "whole process with all levers, as a share of the pipeline's", 28, 28),
    Guess("together-speed", "times", "speed with all levers against the pipeline's", 1.8, 1.8),
    Guess("together-answers", "percent", "answers that stay the same in int8", 95, 99.5),
]


@exercise("verdict", "Return confirmed, qualified or refuted for a printed and a measured number.")
def verdict(attempt):
    if filled(attempt(440, 440.2)) != "confirmed":
        raise Wrong("440.2 rounds to the printed 440: that is as printed, so confirmed.")
    if attempt(440, 409.1) == "refuted":
        raise Wrong("409.1 is 7 % below 440. Within a tenth is qualified.")
    if attempt(440, 409.1) != "qualified":
        raise Wrong("409.1 does not round to 440, and it is within a tenth: qualified.")
    if attempt(440, 470) != "qualified":
        raise Wrong("470 is 7 % above 440. A tenth counts on both sides: use abs().")
    if attempt(20, 22.4) != "refuted":
        raise Wrong("A tenth of the printed 20 is 2, and 22.4 is further away. Do not use a fixed distance.")
    if attempt(440, 17) != "refuted":
        raise Wrong("17 is far below 440: refuted.")
    return "The distance is measured against a tenth of the printed number, on both sides."


@exercise("saved-shares", "Return the share saved of the whole process, and the share saved of what the model adds.")
def saved_shares(attempt):
    whole, added = filled(attempt(800, 400, 350))
    if np.isclose(added, 0.5):
        raise Wrong("The libraries are in both numbers. Take them off before and after: what the model adds is left.")
    if np.isclose(added, 400 / 800 - 350 / 800) or np.isclose(added, 50 / 450):
        raise Wrong("That is the share that is left. The share saved is 1 minus it.")
    if not np.isclose(whole, 0.5):
        raise Wrong("From 800 to 400 MB, half of the whole process is saved: 1 - after / before.")
    if not np.isclose(added, 1 - 50 / 450):
        raise Wrong("Of 450 MB that the model adds, 50 are left: 1 - 50 / 450.")
    return "The same run saves half of the process and nearly nine tenths of what the model adds: say which you mean."


@exercise("trust-threshold", "Return the lowest score from which on the share of right answers reaches `wanted`.")
def trust_threshold(attempt):
    scores = np.array([0.95, 0.9, 0.8, 0.7, 0.6, 0.5])
    right = np.array([True, True, False, True, True, False])
    found = filled(attempt(scores, right, 0.8))
    if found is None:
        raise Wrong("From 0.6 on, four of five answers are right: a threshold exists.")
    if np.isclose(found, 0.9):
        raise Wrong("From 0.9 on all are right, but a lower score is enough: from 0.6 on, four of five are.")
    if np.isclose(found, 0.5):
        raise Wrong("From 0.5 on only four of six are right. Count answers with at least this score, not single ones.")
    if not np.isclose(found, 0.6):
        raise Wrong(f"From 0.6 on, four of five answers are right, which is 0.8. You have {found}.")
    order = [3, 5, 0, 2, 4, 1]
    mixed = attempt(scores[order], right[order], 0.8)
    if mixed is None or not np.isclose(mixed, 0.6):
        raise Wrong("The scores came in another order, and the answer changed: sort, or compare each score with all.")
    if attempt(scores, np.zeros(6, bool), 0.8) is not None:
        raise Wrong("With no right answer there is no such score: return None.")
    return "Below this score say 'none of these'; above it, trust as many answers as you wanted."

"""What lesson 06 asks: what all levers give together, how a claim is judged, which scores can be trusted."""

import numpy as np

from zsc_utils.exercises import Guess, Wrong, exercise, filled
from zsc_utils.exercises._numbers import number

GUESSES: list[Guess] = [
    Guess("together-memory", "percent", "whole process with all levers, as a share of the pipeline's", 28, 28),
    Guess("together-speed", "times", "speed with all levers against the pipeline's", 1.8, 1.8),
    Guess("together-answers", "percent", "answers that stay the same in int8", 95, 99.5),
]


VERDICTS = ("confirmed", "qualified", "refuted")


@exercise("verdict", "Return confirmed, qualified or refuted for a printed and a measured number.")
def verdict(attempt):
    said = filled(attempt(440, 440.2))
    if isinstance(said, str) and said not in VERDICTS and said.strip().lower() in VERDICTS:
        raise Wrong(f"Write the word in small letters: {said.strip().lower()!r}, not {said!r}.")
    if not isinstance(said, str) or said not in VERDICTS:
        raise Wrong(f"Return one of the three words {', '.join(VERDICTS)}, not {said!r}.")
    if said != "confirmed":
        raise Wrong("440.2 rounds to the printed 440: that is as printed, so confirmed.")
    if attempt(440, 439.6) != "confirmed":
        raise Wrong("439.6 rounds to 440, so it is confirmed. int() cuts: use round().")
    if attempt(440, 409.1) == "refuted":
        raise Wrong("409.1 is 7 % below 440. Within a tenth is qualified.")
    if attempt(440, 409.1) != "qualified":
        raise Wrong("409.1 does not round to 440, and it is within a tenth: qualified.")
    if attempt(440, 470) != "qualified":
        raise Wrong("470 is 7 % above 440. A tenth counts on both sides: use abs().")
    if attempt(440, 440.9) != "qualified":
        raise Wrong("440.9 rounds to 441, not to 440: less than 1 apart is not enough. It is qualified.")
    if attempt(20, 22.4) != "refuted":
        raise Wrong("A tenth of the printed 20 is 2, and 22.4 is further away. Do not use a fixed distance.")
    if attempt(100, 110.5) != "refuted":
        raise Wrong(
            "110.5 is 10.5 above 100. A tenth of the printed number is 10: do not take that of the measured one."
        )
    if attempt(440, 17) != "refuted":
        raise Wrong("17 is far below 440: refuted.")
    return "The distance is measured against a tenth of the printed number, on both sides."


def two_numbers(got):
    """What an attempt returned, if it is two numbers."""
    got = filled(got)
    if not isinstance(got, tuple | list | np.ndarray) or len(got) != 2:
        raise Wrong("Return two numbers: the share of the whole process, and the share of what the model adds.")
    return [number(one, "saved_shares") for one in got]


@exercise("saved-shares", "Return the share saved of the whole process, and the share saved of what the model adds.")
def saved_shares(attempt):
    whole, added = two_numbers(attempt(800, 300, 200))
    right = 0.625, 1 - 100 / 600
    if np.isclose(100 * right[0], whole) or np.isclose(100 * right[1], added):
        raise Wrong("That is percent. A share is from 0 to 1.")
    if np.allclose((added, whole), right):
        raise Wrong("The two are swapped: the share of the whole process comes first.")
    if np.isclose(added, 0.625):
        raise Wrong("The libraries are in both numbers. Take them off before and after: what the model adds is left.")
    if np.isclose(added, 1 - right[1]) or np.isclose(whole, 1 - right[0]):
        raise Wrong("That is the share that is left. The share saved is 1 minus it.")
    if not np.isclose(whole, right[0]):
        raise Wrong("From 800 to 300 MB, five eighths of the whole process are saved: 1 - after / before.")
    if np.isclose(added, 1 - 300 / 600) or np.isclose(added, 1 - 100 / 800):
        raise Wrong("The libraries are taken off one number only. They are in both: before and after.")
    if not np.isclose(added, right[1]):
        raise Wrong("Without 200 MB of libraries the model adds 600 MB, and 100 are left: 1 - 100 / 600.")
    if not np.allclose(two_numbers(attempt(800, 400, 350)), (0.5, 1 - 50 / 450)):
        raise Wrong("Right for 800, 300 and 200 MB only. With 800, 400 and 350 it is 1 - 400 / 800 and 1 - 50 / 450.")
    return "The same run saves half of the process and nearly nine tenths of what the model adds: say which you mean."


def same(got, score):
    """Is what an attempt returned that score? None is not."""
    return got is not None and bool(np.isclose(number(got, "trust_threshold"), score))


@exercise("trust-threshold", "Return the lowest score from which on the share of right answers reaches `wanted`.")
def trust_threshold(attempt):
    scores = np.array([0.95, 0.9, 0.8, 0.7, 0.6, 0.5])
    right = np.array([True, True, False, True, False, True])
    found = filled(attempt(scores.copy(), right.copy(), 0.75))
    if found is None:
        raise Wrong("From 0.7 on, three of four answers are right: for 0.75 a threshold exists.")
    found = number(found, "trust_threshold(scores, right, 0.75)")
    if np.isclose(found, 0.9):
        raise Wrong("From 0.9 on all are right, but a lower score is enough: from 0.7 on, three of four are.")
    if np.isclose(found, 0.5):
        raise Wrong("From 0.5 on only four of six are right, less than 0.75. Of all answers with at least this score, "
                    "compare the share that is right with `wanted`.")  # fmt: skip
    if np.isclose(found, 0.6):
        raise Wrong("From 0.6 on only three of five are right. The answer with this score counts too: use >=.")
    if not np.isclose(found, 0.7):
        raise Wrong(f"From 0.7 on, three of four answers are right, which is 0.75. You have {found}.")
    if not same(attempt(scores.copy(), right.copy(), 0.6), 0.5):
        raise Wrong("With another `wanted` the answer is another: from 0.5 on, four of six are right, more than 0.6.")
    order = [3, 5, 0, 2, 4, 1]
    if not same(attempt(scores[order], right[order], 0.75), 0.7):
        raise Wrong("The scores came in another order, and the answer changed: sort, or compare each score with all.")
    if not same(attempt(np.array([0.9, 0.8, 0.8, 0.7]), np.array([True, True, False, True]), 0.8), 0.9):
        raise Wrong("Two answers have the score 0.8, and one of them is wrong. A threshold takes both or none.")
    if attempt(scores.copy(), np.zeros(6, bool), 0.75) is not None:
        raise Wrong("With no right answer there is no such score: return None.")
    return "Below this score say 'none of these'; from it on, at least the share that you wanted is right."

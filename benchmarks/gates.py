"""
How often does the gate promote models that are truly worse, equal or better? Ours against "greater or equal".

    python benchmarks/gates.py

Every trial draws what two models get right on the same rows, at a known disagreement and a known true gain, and asks
the gate. All seeds are fixed. Writes ``benchmarks/results/gates.json``.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from common import goal, write

from airflow_provider_mlops.evaluation import Predictions, Rule, decide

SEED = 20_260_101
SUPERIOR = [Rule("accuracy", at_least=0.5)]
MARGIN = [Rule("accuracy", max_drop_vs_champion=0.01)]
SLICED = [Rule("accuracy", unsafe_ignore_champion=True, at_least=0.5), Rule("accuracy", per="slice")]


def pair(rng, rows, disagreement, gain, accuracy=0.85):
    """Return labels, candidate and champion, with the true *gain* in accuracy (a share, per row or one for all)."""
    label = rng.integers(0, 2, rows)
    right = rng.random(rows) < accuracy
    # A row changes hands with chance `disagreement`; the shares of won and lost rows differ by `gain`.
    won = (disagreement + gain) / 2 / (1 - accuracy)
    lost = (disagreement - gain) / 2 / accuracy
    flip = rng.random(rows) < np.where(right, lost, won)
    return label, label ^ ~(right ^ flip), label ^ ~right


def ask(rules, label, candidate, champion, slices=None, anchor=None):
    label, candidate, champion = (values.astype(np.int64) for values in (label, candidate, champion))
    predictions = Predictions(label, candidate, champion, slices or {})
    return decide(rules, predictions, task="binary", anchor=anchor)


def promotion(rows, disagreement, gain, trials, rules=SUPERIOR):
    """Return how often the gate and "greater or equal" promote, and what the gate says."""
    rng = np.random.default_rng([SEED, rows, round(disagreement * 1000), round(gain * 10_000) + 1000])
    verdicts, naive, needed = Counter(), 0, []
    for _ in range(trials):
        label, candidate, champion = pair(rng, rows, disagreement, gain)
        decision = ask(rules, label, candidate, champion)
        verdicts[decision.verdict.value] += 1
        naive += bool(np.mean(candidate == label) >= np.mean(champion == label))
        if decision.rows_needed:
            needed.append(decision.rows_needed)
    return {
        "rows": rows,
        "disagreement": disagreement,
        "true_gain": gain,
        "margin": rules[0].max_drop_vs_champion,
        "trials": trials,
        "promoted": verdicts["passed"] / trials,
        "greater_or_equal": naive / trials,
        "underpowered": verdicts["underpowered"] / trials,
        "rows_needed_median": float(np.median(needed)) if needed else None,
    }


def scored(rng, rows, noise):
    """Return labels and the scores of two models, of which the second has more noise."""
    label = (rng.random(rows) < 0.3).astype(np.int64)
    signal = label + rng.normal(size=rows)
    return label, signal + 0.1 * rng.normal(size=rows), signal + noise * rng.normal(size=rows)


def rows_by_repetition(rows, trials, noise=0.327):
    """Return the rows at which 1 point is 2.5 standard errors, from the spread of plain rank-sum AUC differences."""
    rng = np.random.default_rng([SEED, trials])
    gains = []
    for _ in range(trials):
        label, *both = scored(rng, rows, noise)
        ranks = [np.argsort(np.argsort(score))[label == 1].sum() for score in both]
        gains.append((ranks[0] - ranks[1]) / (label.sum() * (rows - label.sum())))
    return rows * (2.5 * float(np.std(gains, ddof=1)) / 0.01) ** 2


def auc(rows, trials, noise=0.327):
    """Return the same for ROC AUC: with this much more noise the champion is truly 1.0 point worse."""
    rng = np.random.default_rng([SEED, rows, round(noise * 100)])
    verdicts, gains, needed = Counter(), [], []
    for _ in range(trials):
        decision = decide([Rule("roc_auc", at_least=0.5)], Predictions(*scored(rng, rows, noise)), task="binary")
        verdicts[decision.verdict.value] += 1
        gains.append(decision.rules[0].numbers["gain"])
        if decision.rows_needed:
            needed.append(decision.rows_needed)
    return {
        "metric": "roc_auc",
        "rows": rows,
        "noise": noise,
        "trials": trials,
        "promoted": verdicts["passed"] / trials,
        "underpowered": verdicts["underpowered"] / trials,
        "mean_gain": float(np.mean(gains)),
        "rows_needed_median": float(np.median(needed)) if needed else None,
    }


def slices(trials, loss, rows=1000, count=20, disagreement=0.05):
    """Return how often 20 slices pass, one of which loses *loss*."""
    rng = np.random.default_rng([SEED, round(loss * 1000)])
    names = np.repeat(np.arange(count), rows)
    gain = np.where(names == 0, -loss, 0.0)
    passed = 0
    for _ in range(trials):
        label, candidate, champion = pair(rng, rows * count, disagreement, gain)
        passed += ask(SLICED, label, candidate, champion, {"slice": names}).passed
    return {
        "slices": count,
        "rows_per_slice": rows,
        "loss_of_one": loss,
        "disagreement": disagreement,
        "trials": trials,
        "passed": passed / trials,
    }


def cycles(count, loss, rows, trials, anchored):
    """Return the true loss after *count* candidates, each *loss* worse than its champion, judged on new rows."""
    rng = np.random.default_rng([SEED, count, anchored])
    promoted = []
    for _ in range(trials):
        generations = 0
        for _ in range(count):
            label = rng.integers(0, 2, rows)
            anchor = np.where(rng.random(rows) < 0.9, label, 1 - label)
            models = [anchor]
            for _ in range(generations + 1):
                right = models[-1] == label
                accuracy = right.mean()
                lost, won = (0.02 + loss) / 2 / accuracy, (0.02 - loss) / 2 / (1 - accuracy)
                models.append(models[-1] ^ (rng.random(rows) < np.where(right, lost, won)))
            generations += ask(MARGIN, label, models[-1], models[-2], anchor=anchor if anchored else None).passed
        promoted.append(generations)
    return {
        "cycles": count,
        "loss_per_cycle": loss,
        "rows": rows,
        "anchor": bool(anchored),
        "trials": trials,
        "mean_change": -loss * float(np.mean(promoted)),
        "worst_change": -loss * max(promoted),
    }


def cost(rows=1_000_000, count=20):
    """Return what one decision costs, of three metrics and their intervals, 20 slices; the peak is the process's."""
    rng = np.random.default_rng(SEED)
    label = (rng.random(rows) < 0.3).astype(np.int64)
    signal = label + rng.normal(size=rows)
    scores = [1 / (1 + np.exp(1 - signal - noise * rng.normal(size=rows))) for noise in (0.1, 0.3)]
    rules = [Rule("roc_auc", at_least=0.5), Rule("log_loss", at_most=2), Rule("f1", at_least=0.1)]
    rules.append(Rule("roc_auc", per="slice"))
    begin = time.process_time()
    decision = decide(rules, Predictions(label, *scores, slices={"slice": rng.integers(0, count, rows)}), task="binary")
    return {
        "rows": rows,
        "metrics": 3,
        "slices": count,
        "cpu_seconds": time.process_time() - begin,
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "passed": decision.passed,
    }


def main():
    large = cost()  # first: the peak of the process is then its own
    worse = promotion(1000, 0.05, -0.005, 2000)
    better = promotion(5000, 0.05, 0.01, 1000)
    equal = promotion(1000, 0.05, 0.0, 1000)
    thin = [promotion(5000, 0.10, 0.01, 300), promotion(5000, 0.20, 0.01, 300)]
    enough = [promotion(6200, 0.10, 0.01, 500), promotion(12_400, 0.20, 0.01, 300)]
    few, many = auc(1500, 100), auc(3000, 100)
    same, bad = slices(400, 0.0), slices(300, 0.04)
    same_wide, bad_wide = slices(200, 0.0, disagreement=0.1), slices(200, 0.04, disagreement=0.1)
    free, held = cycles(20, 0.003, 5000, 10, False), cycles(20, 0.003, 5000, 50, True)
    rows = [worse, better, equal, *thin, *enough, few, many, same, bad, same_wide, bad_wide, free, held, large]
    print(f"greater or equal promotes the model 0.5 point worse: {worse['greater_or_equal']}")
    print(f"20 slices at 10 % disagreement: equal pass {same_wide['passed']}, worse stopped {1 - bad_wide['passed']}")
    print(f"20 cycles of -0.3 point without the anchor: mean change {free['mean_change']}")
    goals = [
        goal("0.5 point worse, 1,000 rows: promoted", "<= 0.02", worse["promoted"], worse["promoted"] <= 0.02),
        goal("1 point better, 5,000 rows: promoted", ">= 0.90", better["promoted"], better["promoted"] >= 0.90),
        goal("equal, 1,000 rows: promoted", "<= 0.06", equal["promoted"], equal["promoted"] <= 0.06),
    ]
    for row, wanted in zip(thin, (6200, 12_400), strict=True):
        name = f"disagreement {row['disagreement']:.0%}, 5,000 rows: what is not promoted is underpowered"
        share = row["underpowered"] / max(1 - row["promoted"], 1e-9)
        goals.append(goal(name, ">= 0.98", round(share, 4), share >= 0.98))
        said = row["rows_needed_median"]
        name = f"disagreement {row['disagreement']:.0%}: rows asked for"
        goals.append(goal(name, f"{wanted} +- 5 %", said, abs(said / wanted - 1) <= 0.05))
    for row in enough:
        name = f"disagreement {row['disagreement']:.0%}, {row['rows']} rows, 1 point better: promoted"
        goals.append(
            goal(name, ">= 0.76 (0.80 less the noise of the trials)", row["promoted"], row["promoted"] >= 0.76)
        )
    share, said = few["underpowered"] / (1 - few["promoted"]), few["rows_needed_median"]
    wanted = rows_by_repetition(1500, 2000)
    goals += [
        goal("ROC AUC, 1,500 rows: what is not promoted is underpowered", ">= 0.98", share, share >= 0.98),
        goal(
            "ROC AUC: rows asked for",
            f"{wanted:.0f} (from the spread of 2,000 repetitions) +- 10 %",
            said,
            abs(said / wanted - 1) <= 0.1,
        ),
        goal("ROC AUC, 3,000 rows, 1 point better: promoted", ">= 0.80", many["promoted"], many["promoted"] >= 0.80),
        goal("20 slices, equal models: passed", ">= 0.95", same["passed"], same["passed"] >= 0.95),
        goal("one slice of 20 is 4 points worse: stopped", ">= 0.99", 1 - bad["passed"], 1 - bad["passed"] >= 0.99),
        goal(
            "20 cycles of -0.3 point with the anchor: mean change",
            ">= -0.01",
            held["mean_change"],
            held["mean_change"] >= -0.01,
        ),
        goal("1M rows, 3 metrics, 20 slices: CPU seconds", "<= 60", large["cpu_seconds"], large["cpu_seconds"] <= 60),
        goal("1M rows, 3 metrics, 20 slices: peak GiB", "<= 2", large["peak_gib"], large["peak_gib"] <= 2),
    ]
    return write("gates", goals, rows)


if __name__ == "__main__":
    status = main()
    print(f"{time.process_time():.0f} CPU s")
    sys.exit(status)

"""Accuracy of a bundle and of the same in fewer bits, photo by photo:

    int8_accuracy.py RTPT BUNDLE INT8 OUT [NAME=]DATASET… [-- OPTIONS OF rtpt eval…]

Evaluates both with the same options and prints, for every data set and method, the photos that each has right (per cent), and those on which both
have the same label.
"""

import json
import subprocess
import sys
from pathlib import Path


def evaluated(rtpt, bundle, report, words):
    """For each condition and method, the labels that were given and those that are true."""
    subprocess.run([rtpt, "eval", "--bundle", bundle, "--report", report, *words], check=True, stdout=subprocess.DEVNULL)
    found = {}
    for path in sorted(report.glob("*.jsonl")):
        head, *photos = map(json.loads, path.read_text().splitlines())
        for photo in photos:
            for method, result in zip(head["methods"], photo["results"], strict=True):
                answers = found.setdefault((head["condition"], method["method"]), {})
                answers[photo["path"]] = (result["answer"], photo["truth"])
    return found


def main():
    rtpt, bundle, small, out, *words = sys.argv[1:]
    words = [word for word in words if word != "--"]
    before = evaluated(rtpt, bundle, Path(out) / "before", words)
    after = evaluated(rtpt, small, Path(out) / "after", words)
    print("| data set | method | photos | before | after | the same label |")
    print("|---|---|---|---|---|---|")
    for (condition, method), answers in before.items():
        others = after[condition, method]
        assert answers.keys() == others.keys()
        share = lambda hits: 100 * sum(hits) / len(answers)
        right = [share(label == truth for label, truth in of.values()) for of in (answers, others)]
        same = share(answers[path][0] == others[path][0] for path in answers)
        print(f"| {condition} | `{method}` | {len(answers)} | {right[0]:.1f} % | {right[1]:.1f} % | {same:.1f} % |")


main()

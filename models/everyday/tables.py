"""Writes the tables of the everyday model's card, as Markdown, from what eval.sh measured.

    models/.venv/bin/python models/everyday/tables.py OUT
"""

import json
import sys
from collections import Counter
from pathlib import Path

SETS = {"imagenet": "ImageNet samples", "caltech101": "Caltech-101", "clothing": "clothing", "cifar10": "CIFAR-10"}
# The default method of the bundle.
DEFAULT = "dbd"
# Numbers of views whose accuracies eval.sh has in the curves, photos and attacked ones.
VIEWS, ATTACKED_VIEWS = (2, 4, 8, 16, 32), (4, 8)
CONFUSIONS = 12


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def percent(value):
    return f"{100 * value:.1f}"


def summary(out, name):
    path = out / name / "summary.json"
    return json.loads(path.read_text()) if path.exists() else None


def method(condition, name):
    return next((found for found in condition["methods"] if found["name"] == name), None)


def names_of(conditions):
    return list(dict.fromkeys(found["name"] for condition in conditions for found in condition["methods"]))


def grid(columns, value):
    """A row a method, a column a condition."""
    conditions = list(columns.values())
    title = lambda name: f"`{name}`, the default" if name == DEFAULT else f"`{name}`"
    rows = [[title(name), *(value(found) if (found := method(condition, name)) else "–" for condition in conditions)] for name in names_of(conditions)]
    return table(["method", *columns], rows)


def records(out, report, condition):
    plan, *records = (json.loads(line) for line in (out / report / f"{condition}.jsonl").read_text().splitlines())
    return plan, [record for record in records if "results" in record]


def mistakes(out, report, condition, name):
    """Records whose answer by a method is wrong, with the labels of truth and answer."""
    plan, found = records(out, report, condition)
    place = [method["name"] for method in summary(out, report)["conditions"][0]["methods"]].index(name)
    labels = plan["labels"]
    wrong = ((record, labels[record["truth"]], labels[record["results"][place]["answer"]]) for record in found)
    return [(record, truth, answer) for record, truth, answer in wrong if truth != answer]


def print_views(out):
    conditions = {title: found["conditions"][0] for name, title in SETS.items() if (found := summary(out, f"{name}-many"))}
    print("### Right answers (%) by number of views\n")
    rows = []
    for name in names_of(conditions.values()):
        columns = [method(condition, name) for condition in conditions.values()]
        if columns[0]["curve"]:
            values = [[*found["curve"], found["accuracy"]] for found in columns]
            rows += [[f"`{name}`", count, *(percent(value[place]) for value in values)] for place, count in enumerate((*VIEWS, 64))]
    print(table(["method", "views", *conditions], rows))


def print_attacked(out):
    reports = {title: found for name, title in SETS.items() if (found := summary(out, f"{name}-attacked"))}
    sets = {title: {condition["name"]: condition for condition in report["conditions"]} for title, report in reports.items()}
    for title, conditions in sets.items():
        print(f"\n### {title}, attacked (%), {conditions['clean']['images']} photos\n")
        print(grid(conditions, lambda found: percent(found["accuracy"])))
        print(f"`{DEFAULT}` with {ATTACKED_VIEWS} views: " + ", ".join(f"{key} {method(condition, DEFAULT)['curve']}" for key, condition in conditions.items()))
        print("tamper AUROC: " + ", ".join(f"{key} {condition['tamper_auroc']}" for key, condition in conditions.items()))
    # Of what every set has been through, all photos together.
    common = [name for name in next(iter(sets.values()), {}) if all(name in conditions for conditions in sets.values())]
    merged = {}
    for name in common:
        found = [conditions[name] for conditions in sets.values()]
        count = sum(condition["images"] for condition in found)
        right = {one: sum(method(condition, one)["right"] for condition in found) for one in names_of(found)}
        merged[name] = {"images": count, "methods": [{"name": one, "accuracy": right[one] / count} for one in right]}
    if merged:
        print("\n### All sets together, attacked (%)\n")
        print(grid(merged, lambda found: percent(found["accuracy"])))


def main():
    out = Path(sys.argv[1])
    photos = {title: summary(out, name)["conditions"][0] for name, title in SETS.items() if summary(out, name)}
    print("### Right answers (%), photos\n")
    print(table(["", *photos], [["photos", *(condition["images"] for condition in photos.values())]]))
    print(grid(photos, lambda found: percent(found["accuracy"])))
    print("### Expected calibration error, photos; and calibrated\n")
    print(grid(photos, lambda found: f"{found['ece']:.3f}" + (f" ({found['ece_calibrated']:.3f})" if found["ece_calibrated"] is not None else "")))
    print("### Top 5 (%), photos\n")
    print(grid(photos, lambda found: percent(found["top5"])))
    print_views(out)
    print_attacked(out)
    if summary(out, "shots"):
        print("\n### By example (%)\n")
        print(grid({condition["name"]: condition for condition in summary(out, "shots")["conditions"]}, lambda found: percent(found["accuracy"])))
    if summary(out, "typed"):
        [condition] = summary(out, "typed")["conditions"]
        print("\n### Typed labels\n")
        print(grid({"right": condition}, lambda found: f"{found['right']} of {condition['images']}"))
        for record, truth, answer in mistakes(out, "typed", "typed", DEFAULT):
            print(f"- {record['name']}: {truth}, answered {answer}")
    for name, title in SETS.items():
        if summary(out, name):
            pairs = Counter((truth, answer) for _, truth, answer in mistakes(out, name, "photos", DEFAULT))
            print(f"\n### {title}: confused\n")
            print(", ".join(f"{truth} with {answer} ({count})" for (truth, answer), count in pairs.most_common(CONFUSIONS)))


if __name__ == "__main__":
    main()

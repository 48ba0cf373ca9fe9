"""Renders every chart with every set of values below cases/ and checks what comes out.

    python3 charts/check.py [--documents FOLDER] [--write]

Needs helm-python-sdk and kubernetes-validate, which `cargo xtask charts` fetches. Checked are: Helm's own
lint, strictly; values.schema.json against values that must be refused; each object against the schemas of
all versions of Kubernetes from the chart's lowest, unknown fields refused; that selectors select; and that
examples/kubernetes/ is what the charts render by default. With --documents the documents of hosts and edges
are written there, for `adit` itself to check. With --write examples/kubernetes/ is written anew.
"""

import argparse
import pathlib
import sys

import helm_python as helm
import kubernetes_validate
import yaml

HERE = pathlib.Path(__file__).parent
EXAMPLES = HERE.parent / "examples" / "kubernetes"
LOWEST = (1, 28)
# Custom resources, which Kubernetes has no schema for.
FOREIGN = {"ServiceMonitor"}


def versions():
    return [v for v in kubernetes_validate.utils.all_versions() if tuple(map(int, v.split(".")[:2])) >= LOWEST]


def objects(rendered):
    for path, text in sorted(rendered.items()):
        if path.endswith(".yaml"):
            yield from (document for document in yaml.safe_load_all(text) if document)


def labels_hold(found):
    """What selects pods must match the pods of the workload."""
    pods = [o["spec"]["template"]["metadata"]["labels"] for o in found if "template" in o.get("spec", {})]
    assert len(pods) == 1, "one workload"
    for o in found:
        spec = o.get("spec", {})
        if o["kind"] == "ServiceMonitor":
            continue
        selector = spec.get("selector") or spec.get("podSelector") or {}
        wanted = selector.get("matchLabels", selector if o["kind"] == "Service" else {})
        assert wanted.items() <= pods[0].items(), f"{o['kind']} selects other pods: {wanted}"


def document_of(found):
    for o in found:
        if o["kind"] == "ConfigMap":
            for name in ("host.toml", "edge.toml"):
                if name in o["data"]:
                    return name, o["data"][name]
    return None


def refused(chart, values):
    try:
        chart.validate_schema(values)
    except helm.HelmValuesError:
        return True
    return False


class Dumper(yaml.SafeDumper):
    """Writes text of several lines as such."""


Dumper.add_representer(
    str, lambda d, text: d.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)
)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--documents", type=pathlib.Path)
    arguments.add_argument("--write", action="store_true")
    arguments = arguments.parse_args()
    checked, failures = 0, []
    for folder in sorted(HERE.glob("adit-*")):
        chart = helm.Chart.load(str(folder))
        cases = sorted((folder / "cases").glob("*.yaml"))
        if len(cases) < 12:
            failures.append(f"{folder.name}: fewer than twelve sets of values")
        for case in cases:
            values = yaml.safe_load(case.read_text())
            where = f"{folder.name}, {case.stem}"
            try:
                report = helm.lint(str(folder), values, strict=True)
                wrong = [m for m in report["messages"] if m["severity"] >= 2]
                assert not wrong and not report["errors"], f"lint: {wrong or report['errors']}"
                chart.validate_schema(values)
                found = list(objects(chart.render(values, name="demo", namespace="tunnels")))
                labels_hold(found)
                for o in found:
                    if o["kind"] in FOREIGN:
                        continue
                    for version in versions():
                        kubernetes_validate.validate(o, version.rsplit(".", 1)[0], strict=True)
                        checked += 1
                document = document_of(found)
                assert document, "no document"
                if arguments.documents:
                    target = arguments.documents / folder.name / case.stem
                    target.mkdir(parents=True, exist_ok=True)
                    (target / document[0]).write_text(document[1])
            except Exception as error:  # every case is looked at, and all that is wrong is said
                failures.append(f"{where}: {type(error).__name__}: {error}")
        for case in sorted((folder / "refused").glob("*.yaml")):
            if not refused(chart, yaml.safe_load(case.read_text())):
                failures.append(f"{folder.name}: {case.stem} is accepted")
        example = EXAMPLES / f"{folder.name.removeprefix('adit-')}.yaml"
        rendered = chart.render(yaml.safe_load((folder / "cases" / "minimal.yaml").read_text()), name="demo", namespace="default")
        text = f"# What the chart {folder.name} makes of its defaults. Written by: cargo xtask charts --write\n"
        text += "".join(
            f"---\n{yaml.dump(without_helm(o), Dumper=Dumper, sort_keys=False, width=110)}" for o in objects(rendered)
        )
        if arguments.write:
            EXAMPLES.mkdir(parents=True, exist_ok=True)
            example.write_text(text)
        elif not example.exists() or example.read_text() != text:
            failures.append(f"{example.relative_to(HERE.parent)} is not what the chart renders: `cargo xtask charts --write`")
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"{checked} objects and versions checked, {len(failures)} failed")
    return 1 if failures else 0


def without_helm(o):
    """The object without the labels that only a release of Helm has."""
    for labels in (o["metadata"].get("labels"), o.get("spec", {}).get("template", {}).get("metadata", {}).get("labels")):
        for name in ("helm.sh/chart", "app.kubernetes.io/managed-by"):
            if labels:
                labels.pop(name, None)
    return o


sys.exit(main())

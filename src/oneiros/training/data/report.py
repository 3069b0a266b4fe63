"""What each filter removed: report.json for programs, report.md for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from oneiros.model.replacement import replacing_file
from oneiros.training.data.settings import FILTERS, READING, DataSettings
from oneiros.training.data.tally import Removed, Tally
from oneiros.training.shards import Manifest

REPORT_JSON, REPORT = "report.json", "report.md"

_SOURCES = 100
"""Files that report.md lists; report.json has all."""


def report_values(
    pin: Mapping[str, Any], settings: DataSettings, tally: Tally, manifest: Manifest | None
) -> dict[str, Any]:
    """The content of report.json: the same inputs give the same.

    Args:
        pin: hashes of inputs, settings and versions.
        settings: which filters there were.
        tally: what became of all documents.
        manifest: of the shards, where they are made.
    """
    return {
        **pin,
        "documents": {"read": tally.read, "kept": tally.kept, "kept_bytes": tally.kept_bytes},
        "filters": _rows(settings, tally),
        "lines_cut": tally.lines_cut,
        "masked": dict(sorted(tally.masked.items())),
        "masked_documents": tally.masked_documents,
        "languages": dict(tally.languages.most_common()),
        "shards": None if manifest is None else _shards(manifest),
    }


def write_report(folder: Path, values: dict[str, Any]) -> None:
    """Write both files.

    Raises:
        ModelFileError: they cannot be written.
    """
    with replacing_file(folder / REPORT_JSON) as file:
        file.write((json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())
    with replacing_file(folder / REPORT) as file:
        file.write(_markdown(values).encode())


def _rows(settings: DataSettings, tally: Tally) -> list[dict[str, Any]]:
    rows = []
    left = tally.read
    for name in (READING, *FILTERS):
        if name != READING and not settings.has(name):
            continue
        removed = tally.removed_by(name)
        rows.append(
            {
                "name": name,
                "documents": left,
                "removed": removed,
                "reasons": dict(sorted(_reasons(tally, name).items())),
            }
        )
        left -= removed
    return rows


def _reasons(tally: Tally, name: str) -> dict[str, Any]:
    return {reason: _reason(removed) for reason, removed in tally.removed.get(name, {}).items()}


def _reason(removed: Removed) -> dict[str, Any]:
    return asdict(removed)


def _shards(manifest: Manifest) -> dict[str, Any]:
    return {
        "fingerprint": manifest.fingerprint,
        "tokenizer_sha256": manifest.tokenizer_sha256,
        "splits": {
            name: {
                "documents": sum(shard.documents for shard in shards),
                "tokens": sum(shard.tokens for shard in shards),
                "bytes": sum(shard.bytes for shard in shards),
            }
            for name, shards in manifest.splits.items()
        },
    }


def _markdown(values: dict[str, Any]) -> str:
    documents = values["documents"]
    share = documents["kept"] / max(documents["read"], 1)
    lines = [
        "# Data",
        "",
        f"{documents['read']:,} documents were read and {documents['kept']:,} kept ({share:.1%}): "
        f"{documents['kept_bytes'] / 1e6:,.2f} MB of text.",
        "",
        "| filter | documents | removed | | why |",
        "|---|---|---|---|---|",
    ]
    for row in values["filters"]:
        part = row["removed"] / row["documents"] if row["documents"] else 0
        why = sorted(row["reasons"].items(), key=lambda item: (-item[1]["documents"], item[0]))
        reasons = ", ".join(f"{_code(name)} {reason['documents']:,}" for name, reason in why)
        lines.append(
            f"| {row['name']} | {row['documents']:,} | {row['removed']:,} | {part:.1%} "
            f"| {reasons} |"
        )
    lines += ["", *_alterations(values), *_examples(values), *_origin(values)]
    return "\n".join(lines) + "\n"


def _alterations(values: dict[str, Any]) -> list[str]:
    lines = [f"{values['lines_cut']:,} lines were cut out of documents that were kept."]
    if values["masked"]:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in values["masked"].items())
        lines.append(f"Masked in {values['masked_documents']:,} documents: {kinds}.")
    if values["languages"]:
        shares = ", ".join(f"{name} {count:,}" for name, count in values["languages"].items())
        lines.append(f"Languages: {shares}.")
    return [line for text in lines for line in (text, "")]


def _examples(values: dict[str, Any]) -> list[str]:
    lines = ["## Examples of what was removed", ""]
    for row in values["filters"]:
        if row["removed"]:
            lines += [f"### {row['name']}", ""]
        for reason, removed in row["reasons"].items():
            for example in removed["examples"]:
                detail = f" ({_plain(example['detail'])})" if example["detail"] else ""
                text = _plain(example["text"])
                lines.append(f"- {_code(reason)} {_code(example['id'])}{detail}: {text}")
        if row["removed"]:
            lines.append("")
    return lines if len(lines) > 2 else []


def _origin(values: dict[str, Any]) -> list[str]:
    lines = ["## Where it comes from", ""]
    if values["shards"] is not None:
        splits = values["shards"]["splits"]
        for name, split in splits.items():
            lines.append(
                f"- {name}: {split['tokens']:,} tokens in {split['documents']:,} documents, "
                f"{split['bytes'] / 1e6:,.2f} MB"
            )
        lines.append(f"- shards: {values['shards']['fingerprint']}")
    lines.append(f"- inputs, settings and versions: {values['fingerprint']}")
    lines.append(
        "- versions: " + ", ".join(f"{name} {it}" for name, it in values["versions"].items())
    )
    settings = ", ".join(f"{name} {value}" for name, value in values["settings"].items())
    lines += [f"- settings: {settings}", "", "| file | bytes | SHA-256 |", "|---|---|---|"]
    sources = [*values["inputs"], *values["benchmarks"]]
    for source in sources[:_SOURCES]:
        lines.append(f"| {_code(source['name'])} | {source['bytes']:,} | {source['sha256']} |")
    if len(sources) > _SOURCES:
        lines += ["", f"{len(sources) - _SOURCES:,} more are in {REPORT_JSON}."]
    return lines


def _code(text: str) -> str:
    return f"`{' '.join(text.replace('`', '').replace('|', '/').split())}`"


def _plain(text: str) -> str:
    """Text of a document, so that it is text in Markdown too: no links, pictures, tables, tags."""
    for sign in "\\`*_[]<>|":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())

"""Does README.zh-CN.md say what README.md says? Tells what is missing, stale or different, section by section.

Each section of README.zh-CN.md begins with a line `<!-- section hash -->`: the section is named after the English
heading, and the hash is that of the English text outside of the blocks that code writes. When the Chinese has been
brought in step, the hash that the complaint names goes there.

    python scripts/readme_zh.py

The blocks are written by scripts/lesson_map.py and benchmarks/report.py, in both languages.
"""

import re
import sys
from pathlib import Path

from edition import BEGINS, NUMBER, avoided, differences, hash_of

ROOT = Path(__file__).parent.parent
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
WRITTEN = re.compile(r"<!-- ([a-z: ]+) -->\n.*?<!-- end -->", re.DOTALL)
CODE = re.compile(r"^```\w*\n(.*?)^```$|((?:^ {4}[^\n]*\n)+)", re.DOTALL | re.MULTILINE)
# a page in the other language is the same link
SAME_PAGE = {"](README.md)": "](README.zh-CN.md)", "](notebooks/zh/": "](notebooks/"}


def by_hand(text: str) -> str:
    """A README's text with nothing but their names left of the blocks that code writes."""
    return WRITTEN.sub(r"<!-- \1 -->", text)


def slug(heading: str) -> str:
    """A heading's name, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def english(text: str) -> dict[str, str]:
    """{section: its English text}, in order. A section begins with a heading of the first or second level."""
    found, section, fenced = {}, "", False
    for line in by_hand(text).splitlines(keepends=True):
        fenced ^= line.startswith("```")
        if not fenced and (heading := re.match(r"##? (.+)", line)):
            section = slug(heading[1])
        found[section] = found.get(section, "") + line
    return found


def chinese(text: str) -> dict[str, tuple[str, str]]:
    """{section: (hash of the English text, Chinese text)}, in order."""
    parts = BEGINS.split(by_hand(text))[1:]
    return {section: (rendered, text) for section, rendered, text in zip(parts[::3], parts[1::3], parts[2::3])}


def faults(english_page: str, chinese_page: str) -> list[str]:
    """What is missing, stale or different in the Chinese README, as sentences that begin with the section's name."""
    originals, translations = english(english_page), chinese(chinese_page)
    found = [f"{section}: no English section has this name" for section in translations if section not in originals]
    found += [f"{section}: not translated" for section in originals if section not in translations]
    if not found and [*originals] != [*translations]:
        found.append(f"{', '.join(translations)}: the sections have another order in English")
    for section in (section for section in originals if section in translations):
        rendered, text = translations[section]
        if rendered != hash_of(originals[section]):
            now = hash_of(originals[section])
            found.append(f"{section}: the English section has changed; its hash is {now} now")
        found += [f"{section}: {what}" for what in differences_of(originals[section], text)]
    return found


def differences_of(original: str, text: str):
    """What differs between a section and its Chinese, but for words."""
    for other, same in SAME_PAGE.items():
        text = text.replace(other, same)
    yield from differences(original, text)
    yield from (f"{word} is a word that terms.md avoids" for word in avoided(text))
    for what, find in {"code blocks": code, "items of lists": items, "tables": rows, "written blocks": blocks}.items():
        one, other = find(original), find(text)
        if one != other:
            yield f"{what} differ: English {one}, Chinese {other}"


def code(text: str) -> list[str]:
    """The lines of all code blocks without comments and placeholders such as <this repository>."""
    held = "\n".join(fenced or indented for fenced, indented in CODE.findall(text))
    return [re.sub(r"\s+# .*|<[^>]*>", "", line).strip() for line in held.splitlines()]


def items(text: str) -> int:
    """How many items its lists have."""
    return len(re.findall(r"^- ", text, re.MULTILINE))


def rows(text: str) -> list[list[str]]:
    """The numbers of each row of its tables."""
    return [NUMBER.findall(line) for line in text.splitlines() if line.startswith("|")]


def blocks(text: str) -> list[str]:
    """The names of the blocks that code writes."""
    return re.findall(r"^<!-- ([a-z: ]+) -->$", text, re.MULTILINE)


def main() -> None:
    found = faults(ENGLISH.read_text(encoding="utf-8"), CHINESE.read_text(encoding="utf-8"))
    print(*found, sep="\n", end="\n" * bool(found))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()

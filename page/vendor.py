"""Copies the page's libraries from node_modules into the package, as their authors publish them, with their licences.

    make page     npm ci by page/package-lock.json, whose hashes npm checks, then this

The same lock file gives the same bytes: `page/vendored.json` has their digests, and a test compares them.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
VENDOR = HERE.parent / "src" / "sotol" / "server" / "ui" / "static" / "vendor"
FILES = {
    "markdown-it.mjs": "markdown-it/dist/browser/markdown-it.esm.min.mjs",
    "purify.mjs": "dompurify/dist/purify.es.mjs",
    "highlight.js": "@highlightjs/cdn-assets/es/highlight.min.js",
    "katex/katex.js": "katex/dist/katex.min.js",
}
STYLES = "katex/dist/katex.min.css"
FONTS = "katex/dist/fonts"
# Libraries that are part of markdown-it's file come with their own licences.
LICENCES = (
    "markdown-it/LICENSE", "linkify-it/LICENSE", "mdurl/LICENSE", "punycode.js/LICENSE-MIT.txt", "uc.micro/LICENSE.txt",
    "entities/LICENSE", "dompurify/LICENSE", "@highlightjs/cdn-assets/LICENSE", "katex/LICENSE",
)  # fmt: skip
SOURCE_MAP = re.compile(r"\n?//# sourceMappingURL=\S+\s*$")
OTHER_FONTS = re.compile(r",url\([^)]+\.(?:woff|ttf)\) format\(\"[a-z]+\"\)")


def main() -> None:
    """Write all files anew."""
    shutil.rmtree(VENDOR, ignore_errors=True)
    (VENDOR / "katex" / "fonts").mkdir(parents=True)
    for name, source in FILES.items():
        text = (MODULES / source).read_text(encoding="utf-8")
        (VENDOR / name).write_text(SOURCE_MAP.sub("\n", text), encoding="utf-8")
    styles = OTHER_FONTS.sub("", (MODULES / STYLES).read_text(encoding="utf-8"))  # every browser takes WOFF2
    (VENDOR / "katex" / "katex.css").write_text(styles, encoding="utf-8")
    for font in sorted((MODULES / FONTS).glob("*.woff2")):
        shutil.copyfile(font, VENDOR / "katex" / "fonts" / font.name)
    parts = []
    for path in LICENCES:
        package = MODULES / Path(path).parent / "package.json"
        about = json.loads(package.read_text(encoding="utf-8"))
        said = (MODULES / path).read_text(encoding="utf-8").strip()
        parts.append(f"{about['name']} {about['version']} ({about['license']})\n\n{said}\n")
    (VENDOR / "LICENSES.txt").write_text(("\n" + "-" * 80 + "\n\n").join(parts), encoding="utf-8")
    digests = {
        path.relative_to(VENDOR).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(VENDOR.rglob("*"))
        if path.is_file()
    }
    (HERE / "vendored.json").write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
